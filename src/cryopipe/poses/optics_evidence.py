"""Evidence of posed images about their scale, defocus and astigmatism, in two parts that have no Fourier pixel in common.

The first part has every other band of shells, and the second part has the bands between. The noise of different pixels is
independent, so the errors of the two parts are independent, too. A true deviation is in both parts. Each parameter is
estimated with one Gauss-Newton step from its present value. In each part all other parameters of an image are free: pose,
scale, defocus and astigmatism are eliminated from the normal equations (Schur complement). Thus the error of one parameter is
not taken for the signal of another.

Why a step, and not the likelihood at other values? The reference includes the noise of the image itself, with the CTF of its
present parameters. This raises the likelihood at the present values above that at all other values. With 150 octahedral
particles this effect was larger than that of true deviations of the defocus of 200 Å. The slope at the present values does not
have this error, because the raised likelihood has its maximum there. A step is correct if the phase of the CTF is wrong by
less than a radian at the important shells. Larger errors decrease with every iteration.

Reference for defocus and astigmatism from posed particles: Zivanov et al. 2018, doi:10.7554/eLife.42166.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopipe.imaging.backend import array_module, to_numpy
from cryopipe.imaging.optics import CtfParameters
from cryopipe.kernels.devices import Resources, over_devices, to_device
from cryopipe.kernels.pose_steps import PoseProblem
from cryopipe.kernels.poses import normal_equations
from cryopipe.poses.batch import pose_problem
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import ReferenceMap

#: shells of a band. A choice: the mask of a reference correlates the noise of neighbouring shells, which favours wide bands, but
#: with more bands both parts are more alike
BAND = 2
#: number of images that are compared together, which limits the memory of the copies of their spectra
_CHUNK = 512
#: indices in the normal equations: the first 5 are those of the pose
_SCALE, _DEFOCUS, _ASTIGMATISM = 5, 6, [7, 8]
#: share of the diagonal that is added, so that the equations can be solved if an image has no information in a direction
_FLOOR = 1e-9


@dataclass(frozen=True)
class Standing:
    """Present parameters of n posed images.

    Attributes
    ----------
    rotations : float64 [n, 3, 3]
    shifts_px : float64 [n, 2]
    scale : float64 [n]
        Factor of the model.
    ctf_change_A : float64 [n, 3]
        Change against the CTFs of the images, see `cryopipe.poses.ctf.changed_parameters`.
    """

    rotations: NDArray[np.float64]
    shifts_px: NDArray[np.float64]
    scale: NDArray[np.float64]
    ctf_change_A: NDArray[np.float64]

    def subset(self, index: Any) -> Standing:
        """Return the images at ``index``."""
        return Standing(*(getattr(self, field.name)[index] for field in fields(self)))


@dataclass(frozen=True, eq=False)
class OpticsEvidence:
    """Evidence of n images. The second axis is that of the two parts.

    Attributes
    ----------
    scale, scale_information : float64 [n, 2]
        The estimate, and the inverse of its variance.
    defocus, defocus_information : float64 [n, 2]
        Change of the mean defocus against the CTFs of the images, Å.
    astigmatism : float64 [n, 2, 2]
        Gradient of the log-likelihood in both components (last axis) at the present astigmatism. Other parameters are
        eliminated.
    astigmatism_information : float64 [n, 2, 2, 2]
        Negative second derivative of the same log-likelihood.
    """

    scale: NDArray[np.float64]
    scale_information: NDArray[np.float64]
    defocus: NDArray[np.float64]
    defocus_information: NDArray[np.float64]
    astigmatism: NDArray[np.float64]
    astigmatism_information: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence[OpticsEvidence]) -> OpticsEvidence:
        """Put consecutive blocks of images together."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def optics_evidence(
    images: ParticleSpectra,
    noise: NoiseModel,
    reference: ReferenceMap,
    standing: Standing,
    parameters: CtfParameters,
    *,
    resources: Resources | None = None,
) -> OpticsEvidence:
    """Compare posed images with a reference.

    Parameters
    ----------
    images : ParticleSpectra
        n images with the CTFs of ``parameters``, cropped to the radius that is used.
    noise, reference
        As for `cryopipe.poses.refine_poses.refine_poses`.
    standing : Standing
        Refined poses, scales and changes of the CTFs.
    parameters : CtfParameters
        The CTFs of the images (for phase-flipped images, those that were used for flipping).
    resources : Resources, optional
        CUDA devices to spread the images over.

    Returns
    -------
    OpticsEvidence
        The result of an image does not depend on other images.
    """
    n, devices = len(images), None if resources is None else resources.devices
    weight = noise.inverse_variance_of_each(images)
    moved: dict[int, Any] = {}

    def told(device: int | None, part: slice) -> OpticsEvidence:
        own, cube = images.subset(part), reference.cube
        if device is not None:
            own, cube = own.to_gpu(), moved.setdefault(device, to_device(cube))
        problem = pose_problem(
            own,
            weight if weight.ndim == 1 else weight[part],
            cube,
            parameters=parameters.subset(part),
            offset_spectrum=None,
            padding=reference.padding,
        )
        return _evidence(problem, images.pixels.shell, standing.subset(part))

    if devices is None:
        cuts = [slice(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK)]
        return OpticsEvidence.joined([told(None, cut) for cut in cuts])
    return OpticsEvidence.joined(over_devices(told, n, _CHUNK, devices))


def _evidence(problem: PoseProblem, shell: Any, at: Standing) -> OpticsEvidence:
    """Return the evidence of the images of a problem in both parts of its pixels."""
    xp = array_module(problem.cube)
    phase = to_numpy(problem.phase).copy()
    phase[:, 1:4] += to_numpy(problem.per_A)[:, None] * at.ctf_change_A
    found = []
    for part in range(2):
        own = _pixels(problem, np.flatnonzero(shell // BAND % 2 == part))
        equations = normal_equations(
            own.cube, own.images, own.ctf, own.inverse_variance, xp.asarray(at.rotations), xp.asarray(at.shifts_px),
            own.kx, own.ky, box=own.box, padding=own.padding, scale=xp.asarray(at.scale), with_scale=True,
            phase=xp.asarray(phase), per_A=own.per_A, defocus_terms=3,
        )  # fmt: skip
        hessian, gradient = (to_numpy(array) for array in equations[:2])
        told = []
        for present, place in ((at.scale, _SCALE), (at.ctf_change_A[:, 0], _DEFOCUS)):
            slope, information = (array.reshape(len(present)) for array in _eliminated(hessian, gradient, [place]))
            told += _stepped(present, slope, information)
        found.append((*told, *_eliminated(hessian, gradient, _ASTIGMATISM)))
    return OpticsEvidence(*(np.stack(pair, axis=1) for pair in zip(*found, strict=True)))


def _stepped(
    present: NDArray[np.float64], slope: NDArray[np.float64], information: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Return the values after a step, and their information. Images without information keep their value."""
    known = np.maximum(information, 0)
    return [present + np.divide(slope, known, out=np.zeros(len(known)), where=known > 0), known]


def _pixels(problem: PoseProblem, index: NDArray[np.int64]) -> PoseProblem:
    """Return a problem with the Fourier pixels ``index`` only."""
    xp = array_module(problem.cube)
    at = xp.asarray(index)
    images, ctf = (xp.ascontiguousarray(array[:, at]) for array in (problem.images, problem.ctf))
    weight = xp.ascontiguousarray(problem.inverse_variance[..., at])
    return replace(problem, images=images, ctf=ctf, inverse_variance=weight, kx=problem.kx[at], ky=problem.ky[at])


def _eliminated(
    hessian: NDArray[np.float64], gradient: NDArray[np.float64], kept: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return slope [n, k] and information [n, k, k] of the log-likelihood in the ``kept`` parameters. All others are free."""
    others = [place for place in range(hessian.shape[1]) if place not in kept]
    size = 1 / np.sqrt(np.maximum(np.einsum("nii->ni", hessian), 1e-300))
    scaled = hessian * size[:, :, None] * size[:, None, :] + _FLOOR * np.eye(hessian.shape[1])
    slope = -gradient * size
    across = scaled[:, others][:, :, kept]
    answer = np.linalg.solve(scaled[:, others][:, :, others], np.concatenate([across, slope[:, others, None]], axis=2))
    information = scaled[:, kept][:, :, kept] - across.transpose(0, 2, 1) @ answer[:, :, :-1]
    reduced = slope[:, kept] - (across.transpose(0, 2, 1) @ answer[:, :, -1:])[:, :, 0]
    back = size[:, kept]
    return reduced / back, information / (back[:, :, None] * back[:, None, :])
