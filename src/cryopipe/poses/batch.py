"""One batch of `refine_poses`: its images in the form of the kernel, the scan over defoci, and the covariances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cryopipe.imaging.backend import array_module, to_numpy
from cryopipe.imaging.optics import CtfParameters
from cryopipe.kernels.pose_steps import DEFOCUS, OFFSET, SCALE, PoseProblem, StepRules, refine
from cryopipe.kernels.poses import score_defoci
from cryopipe.poses.ctf import ctf_factor, phase_terms
from cryopipe.projection.particle_spectra import ParticleSpectra

#: change of the CTF's phase at the outermost shell per step of a defocus scan, rad. The refinement covers such a step
_SCAN_RAD = np.pi / 4


@dataclass(frozen=True)
class Start:
    """Start values of the images of a batch and centres of their priors, one row per image.

    The columns of ``x`` and ``centre`` [n, 5] are shift x, shift y, scale, defocus change and offset.
    """

    rotations: np.ndarray
    x: np.ndarray
    middle: np.ndarray
    centre: np.ndarray

    def rows(self, part: Any) -> Start:
        """Return the rows ``part``."""
        return Start(self.rotations[part], self.x[part], self.middle[part], self.centre[part])


@dataclass(frozen=True)
class End:
    """Results of the images of a batch, one row per image."""

    rotations: np.ndarray
    x: np.ndarray
    log_likelihood: np.ndarray
    covariance: np.ndarray
    converged: np.ndarray
    evaluations: np.ndarray


def pose_problem(
    images: ParticleSpectra,
    inverse_variance: np.ndarray,
    cube: Any,
    *,
    parameters: CtfParameters | None,
    offset_spectrum: np.ndarray | None,
    padding: int,
) -> PoseProblem:
    """Return the images in the form of the kernel.

    Parameters
    ----------
    images : ParticleSpectra
        n images, on the side of the cube.
    inverse_variance : float32 [K] or [n, K]
        1/σ² of the images.
    cube : complex64 [2R+1, 2R+1, R+1]
        Half cube of the reference.
    parameters : CtfParameters, optional
        The images' CTFs, if the defocus is refined.
    offset_spectrum : float32 [K'], optional
        Change of the lowest frequencies by a grey offset of one, if the offset is refined.
    padding : int
        Zero-padding factor of the cube.
    """
    xp = array_module(images.values, images.ctf, cube)
    phase = per_A = None
    ctf = images.ctf
    if parameters is not None:
        terms, slope = phase_terms(parameters, box=images.box, pixel_size_A=images.pixel_size_A)
        phase, per_A, ctf = xp.asarray(terms), xp.asarray(slope), ctf_factor(images, parameters)
    return PoseProblem(
        cube,
        xp.ascontiguousarray(images.values),
        xp.ascontiguousarray(ctf),
        xp.asarray(inverse_variance),
        xp.asarray(images.pixels.kx),
        xp.asarray(images.pixels.ky),
        images.box,
        padding,
        phase,
        per_A,
        None if offset_spectrum is None else xp.asarray(offset_spectrum),
    )


def refine_batch(problem: PoseProblem, rules: StepRules, start: Start, *, scan: bool) -> End:
    """Move all images of a batch until each has converged or its evaluations are used up.

    Parameters
    ----------
    problem : PoseProblem
        The images of the batch.
    rules : StepRules
        Free parameters, longest steps, priors and bounds.
    start : Start
        Start values of the images.
    scan : bool
        Start from the likeliest defocus of the whole range.
    """
    x = start.x.copy()
    if scan and rules.with_defocus:
        x[:, DEFOCUS] = scan_defocus(problem, rules, start)
    found = refine(problem, rules, start.rotations, x, middle=start.middle, centre=start.centre)
    noise = noise_alone(problem)
    return End(
        found.rotations, found.x, noise - found.value, covariance_of(found.hessian), found.converged, found.evaluations
    )


def noise_alone(problem: PoseProblem) -> np.ndarray:
    """Return the sum of |X|^2 / (2 sigma^2) of each image, float64 [n]. It is not finite if the image is not finite."""
    values, weight = problem.images, problem.inverse_variance
    if isinstance(values, np.ndarray):
        from cryopipe.kernels.cpu import pose_scores

        out = np.empty(len(values))
        pose_scores.noise_alone(values.view(np.float32), np.atleast_2d(weight), out)
        return out
    power = (values.real**2 + values.imag**2) * weight
    return np.asarray(to_numpy(power.sum(axis=1, dtype=np.float64)) / 2)


def scan_defocus(problem: PoseProblem, rules: StepRules, start: Start) -> np.ndarray:
    """Return each image's likeliest defocus change in Å among trial values over the whole range, at its pose."""
    xp = array_module(problem.cube)
    k2 = float((problem.kx**2 + problem.ky**2).max())
    step = _SCAN_RAD / (float(to_numpy(problem.per_A).max()) * k2)
    low, high = float(rules.low[DEFOCUS]), float(rules.high[DEFOCUS])
    count = max(int(np.ceil((high - low) / step)), 2) + 1
    trials = np.linspace(low, high, count)
    scores = to_numpy(
        score_defoci(
            problem.cube, problem.images, problem.ctf, problem.inverse_variance, xp.asarray(start.rotations),
            xp.asarray(start.x[:, :SCALE].copy()), problem.kx, problem.ky, box=problem.box, phase=problem.phase,
            per_A=problem.per_A, first=low, step=float(trials[1] - trials[0]), count=count, padding=problem.padding,
            scale=xp.asarray(start.x[:, SCALE].copy()),
            offset_spectrum=problem.offset_spectrum if rules.with_offset else None,
            offset=xp.asarray(start.x[:, OFFSET].copy()),
        )
    )  # fmt: skip
    scores = scores - 0.5 * rules.precision[DEFOCUS] * (trials - start.centre[:, DEFOCUS, None]) ** 2
    best = trials[scores.argmax(axis=1)]
    near = np.abs(best - start.x[:, DEFOCUS]) <= trials[1] - trials[0]
    return np.where(near, start.x[:, DEFOCUS], best)


def covariance_of(hessian: np.ndarray) -> np.ndarray:
    """Return the inverse of Hessians [n, p, p].

    If an image has no information on a parameter, the variance of this parameter is infinite and its covariances are
    zero.
    """
    diagonal = np.einsum("nii->ni", hessian)
    known = diagonal > 0
    unit = np.where(known, 1 / np.sqrt(np.where(known, diagonal, 1)), 0)
    size = hessian.shape[1]
    scaled = hessian * unit[:, :, None] * unit[:, None, :]
    scaled[:, np.arange(size), np.arange(size)] = 1 + 1e-9  # keeps the matrix invertible if rounding makes it singular
    inverse = np.linalg.inv(scaled) * unit[:, :, None] * unit[:, None, :]
    image, place = np.nonzero(~known)
    inverse[image, place, place] = np.inf
    return inverse
