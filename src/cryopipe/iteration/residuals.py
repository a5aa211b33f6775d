"""What posed images leave unexplained: noise spectra and grey scales in one pass; and what their CTFs should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopipe.imaging.backend import array_module, to_numpy
from cryopipe.imaging.optics import CtfParameters
from cryopipe.kernels.slices import extract_slices
from cryopipe.poses.model import DefocusModel
from cryopipe.poses.refine_astigmatism import refine_astigmatism
from cryopipe.poses.refine_poses import refine_poses
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.phases import shift_values
from cryopipe.search.devices import over_devices, to_device

_CHUNK = 64


@dataclass(frozen=True)
class Residuals:
    """Sums over posed images; those of several blocks are put together by `joined`.

    Attributes
    ----------
    power : array float64 [radius + 1]
        What is left of the images' power by shell, over the pixels of a shell and the images.
    pixels : array int64 [radius + 1]
        Pixels of each shell, times the images.
    cross, model : array float64 [n]
        Weighted product of each image with its model, and the model's weighted power.
    """

    power: NDArray[np.float64]
    pixels: NDArray[np.int64]
    cross: NDArray[np.float64]
    model: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence[Residuals]) -> Residuals:
        """Put the sums of consecutive blocks of images together, in their order."""
        power, pixels = parts[0].power, parts[0].pixels
        for part in parts[1:]:
            power, pixels = power + part.power, pixels + part.pixels
        return cls(power, pixels, *(np.concatenate([getattr(p, name) for p in parts]) for name in ("cross", "model")))

    @property
    def sigma2(self) -> NDArray[np.float64]:
        """Noise variance of each of real and imaginary part, by shell; shell 0 repeats shell 1."""
        new: NDArray[np.float64] = self.power / np.maximum(2 * self.pixels, 1)
        new[0] = new[1]
        return new

    @property
    def scale(self) -> NDArray[np.float64]:
        """Least-squares grey scale of each image, [n]."""
        return self.cross / self._floored()

    @property
    def grey(self) -> float:
        """Least-squares grey scale of all images together."""
        return float(self.cross.sum() / self._floored().sum())

    def _floored(self) -> NDArray[np.float64]:
        return np.maximum(self.model, 1e-6 * max(self.model.max(), 1e-30))


def measure_residuals(
    images: ParticleSpectra,
    cube: Any,
    rotations: NDArray[np.float64],
    shifts_px: NDArray[np.float64],
    *,
    sigma2: NDArray[np.float64],
    padding: int = 2,
    devices: Sequence[int] | None = None,
) -> Residuals:
    """Compare images with the reference at their poses.

    Parameters
    ----------
    images : ParticleSpectra
        n images inside a radius.
    cube : complex64 half cube
        The reference, at least of the images' radius.
    rotations, shifts_px : array [n, 3, 3], [n, 2]
        Poses; the shift (x, y) is what has to be applied.
    sigma2 : array [>= radius + 1]
        Present noise spectrum, which weighs the scale's pixels.
    devices : sequence of int, optional
        CUDA devices to spread the images over. The result does not depend on their number.
    """
    shell = images.pixels.shell
    shells = images.pixels.radius + 1
    weight = (1 / sigma2[shell]).astype(np.float32)
    power = np.zeros(shells)
    cross_sums, model_sums = np.empty(len(images)), np.empty(len(images))
    cubes: dict[int | None, Any] = {None: cube}

    def compared(device: int | None, part: slice) -> tuple[Any, Any, Any]:
        own = images.subset(part)
        if device is not None:
            own = own.to_gpu()
            if device not in cubes:
                cubes[device] = to_device(cube)
        return _compare(own, cubes[device], rotations[part], shifts_px[part], weight, padding)

    parts = [slice(start, min(start + _CHUNK, len(images))) for start in range(0, len(images), _CHUNK)]
    on_host = (compared(None, part) for part in parts)
    found = on_host if devices is None else over_devices(compared, len(images), _CHUNK, devices)
    for part, (residual, cross, model) in zip(parts, found, strict=True):
        power += np.bincount(shell, weights=to_numpy(residual), minlength=shells)
        cross_sums[part], model_sums[part] = to_numpy(cross), to_numpy(model)
    return Residuals(power, np.bincount(shell, minlength=shells) * len(images), cross_sums, model_sums)


@dataclass(frozen=True)
class CtfOptions:
    """How the CTFs of posed images are refined.

    Attributes
    ----------
    range_A : float
        The mean defocus moves by at most this.
    prior_A : float
        Standard deviation of the particles' heights about the table's defocus.
    astigmatism_prior_A : float or None
        Standard deviation of the components of a micrograph's astigmatism about those of the table; None: the
        astigmatism stays.
    """

    range_A: float
    prior_A: float
    astigmatism_prior_A: float | None = None


def refine_ctfs(
    images: ParticleSpectra,
    parameters: CtfParameters,
    cube: Any,
    rotations: NDArray[np.float64],
    shifts_px: NDArray[np.float64],
    *,
    sigma2: NDArray[np.float64],
    options: CtfOptions,
    micrograph: NDArray[Any] | None = None,
    padding: int = 2,
    devices: Sequence[int] | None = None,
) -> NDArray[np.float64]:
    """Return the change of each posed image's CTF that fits the reference best, float64 [n, 3] in Å.

    The columns are mean defocus and the components of the micrograph's astigmatism ((U - V)/2 cos 2a,
    (U - V)/2 sin 2a), which are zero where the options leave it alone. Poses move along, so that neither takes the
    other's error; they are not returned, since the next iteration begins with them anyway. Astigmatism is refined on the
    CPU.

    Parameters
    ----------
    images : ParticleSpectra
        n images; for the astigmatism, all of each micrograph.
    parameters : CtfParameters
        The CTFs that the images carry (phase-flipped ones: were flipped with), one row per image. The priors are
        Gaussians around them.
    cube : complex64 half cube
        The reference.
    rotations, shifts_px : array [n, 3, 3], [n, 2]
        Poses.
    sigma2 : array [>= radius + 1]
        Noise spectrum.
    options : CtfOptions
        Range and priors.
    micrograph : array [n], optional
        Each image's micrograph; needed for the astigmatism.
    padding : int
        Of the cube.
    devices : sequence of int, optional
        CUDA devices to spread the images over.
    """
    model = DefocusModel(parameters, sigma_A=options.prior_A, range_A=options.range_A)
    found = refine_poses(images, sigma2, cube, rotations, shifts_px, defocus=model, padding=padding, devices=devices)
    if options.astigmatism_prior_A is None or micrograph is None:
        return np.stack([found.defocus_change_A, *np.zeros((2, len(images)))], axis=1)
    together = refine_astigmatism(
        images, sigma2, cube, found, model, micrograph, sigma_A=options.astigmatism_prior_A, padding=padding
    )
    return together.particle_change_A


def _compare(
    images: ParticleSpectra,
    cube: Any,
    rotations: NDArray[np.float64],
    shifts_px: NDArray[np.float64],
    weight: NDArray[np.float32],
    padding: int,
) -> tuple[Any, Any, Any]:
    """Return the images' summed residual power [K], their products with their models and the models' power, both [n]."""
    xp, pixels = array_module(images.values, cube), images.pixels
    kx, ky, weight = (xp.asarray(array) for array in (pixels.kx, pixels.ky, weight))
    model = extract_slices(cube, xp.asarray(rotations.astype(np.float32)), kx, ky, padding=padding) * images.ctf
    centred = shift_values(images.values, pixels, shifts_px)
    return (
        _abs2(centred - model).sum(axis=0, dtype=np.float64),
        (_real_product(centred, model) * weight).sum(axis=1, dtype=np.float64),
        (_abs2(model) * weight).sum(axis=1, dtype=np.float64),
    )


def _abs2(values: Any) -> Any:
    return values.real**2 + values.imag**2


def _real_product(a: Any, b: Any) -> Any:
    return a.real * b.real + a.imag * b.imag
