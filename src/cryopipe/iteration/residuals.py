"""Residuals of posed images: noise spectrum and grey scales in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopipe.imaging.backend import array_module, to_numpy
from cryopipe.kernels.devices import over_devices, to_device
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.phases import shift_values
from cryopipe.projection.references import ReferenceMap

#: Number of images compared at a time. A choice: larger blocks need more memory for the slices of the reference, smaller
#: blocks make more calls. The sums of the blocks are added in a fixed order, so this number decides their rounding.
_CHUNK = 64


@dataclass(frozen=True)
class Residuals:
    """Sums over posed images. `joined` puts the sums of several blocks together.

    Attributes
    ----------
    power : array float64 [radius + 1]
        Residual power of each shell, summed over the pixels of the shell and over the images.
    pixels : array int64 [radius + 1]
        Number of pixels of each shell, times the number of images.
    cross, model : array float64 [n]
        Weighted product of each image with its model, and weighted power of the model.
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
        """Noise variance of the real part (and of the imaginary part) in each shell. Shell 0 repeats shell 1."""
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
    noise: NoiseModel,
    reference: ReferenceMap,
    rotations: NDArray[np.float64],
    shifts_px: NDArray[np.float64],
    *,
    devices: Sequence[int] | None = None,
) -> Residuals:
    """Compare images with the reference at their poses.

    Parameters
    ----------
    images : ParticleSpectra
        n images inside a radius.
    noise : NoiseModel
        Present noise spectrum, the same for all images. It weighs the pixels when the grey scale is fitted.
    reference : ReferenceMap
        Its radius is at least that of the images.
    rotations, shifts_px : array [n, 3, 3], [n, 2]
        Poses. The shift (x, y) is the one to apply to the image.
    devices : sequence of int, optional
        CUDA devices to spread the images over. The result does not depend on their number.
    """
    shell = images.pixels.shell
    shells = images.pixels.radius + 1
    weight = noise.inverse_variance_of_each(images)
    power = np.zeros(shells)
    cross_sums, model_sums = np.empty(len(images)), np.empty(len(images))
    maps: dict[int | None, ReferenceMap] = {None: reference}

    def compared(device: int | None, part: slice) -> tuple[Any, Any, Any]:
        own = images.subset(part)
        if device is not None:
            own = own.to_gpu()
            if device not in maps:
                maps[device] = replace(reference, cube=to_device(reference.cube))
        return _compare(own, maps[device], rotations[part], shifts_px[part], weight)

    parts = [slice(start, min(start + _CHUNK, len(images))) for start in range(0, len(images), _CHUNK)]
    on_host = (compared(None, part) for part in parts)
    found = on_host if devices is None else over_devices(compared, len(images), _CHUNK, devices)
    for part, (residual, cross, model) in zip(parts, found, strict=True):
        power += np.bincount(shell, weights=to_numpy(residual), minlength=shells)
        cross_sums[part], model_sums[part] = to_numpy(cross), to_numpy(model)
    return Residuals(power, np.bincount(shell, minlength=shells) * len(images), cross_sums, model_sums)


def _compare(
    images: ParticleSpectra,
    reference: ReferenceMap,
    rotations: NDArray[np.float64],
    shifts_px: NDArray[np.float64],
    weight: NDArray[np.float32],
) -> tuple[Any, Any, Any]:
    """Return the residual power summed over images [K], the products of images and models [n], and the power of models [n]."""
    xp, pixels = array_module(images.values, reference.cube), images.pixels
    weight = xp.asarray(weight)
    model = reference.slices(rotations.astype(np.float32), pixels) * images.ctf
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
