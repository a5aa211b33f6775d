"""Moving every image's pose continuously to its likelihood's maximum: Levenberg-Marquardt.

The parameters are 3 angles, 2 shifts and, where asked for, a scale.
The kernel gives the Gauss-Newton Hessian H and gradient g of minus the log-likelihood at each image's pose. A step
solves ``(H + λ diag H) d = -g``, is cut to a largest rotation and shift, and is kept only where it lowers the objective
(else λ grows tenfold); every image has its own λ and stops on its own. From a start within about half a resolution
element over the particle's radius (5° at 12 Å for 125 Å) this finds the maximum; beyond that start from several
candidates (`refine_candidates`) or raise the radius in stages. The inverse of H is the Cramér-Rao covariance of the
pose.

References: Marquardt 1963, doi:10.1137/0111030; Grigorieff 2007, doi:10.1016/j.jsb.2006.05.004 (continuous pose
refinement).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.geometry import angular_distance_deg
from cryopipe.search._pose_steps import Batch, StepOptions, refine_batch
from cryopipe.search.spectra import ParticleSpectra, inverse_variance_of

_BATCH_BYTES = 128 << 20
_ROUGH = 4
_FIELDS = ("rotations", "shifts_px", "scale", "log_likelihood", "covariance", "converged")
_PER_IMAGE = ("noise_group", "scale", "shift_centre_px", "rotation_centre")


@dataclass(frozen=True)
class PoseRefinement:
    """Refined poses, a row an image.

    Attributes
    ----------
    rotations : float64 [n, 3, 3]
    shifts_px : float64 [n, 2]
        (x, y) applied to centre the image.
    scale : float64 [n]
        Factor of the model (as given, or refined).
    log_likelihood : float64 [n]
        Relative to noise alone, at the refined pose, without priors.
    covariance : float64 [n, p, p]
        Of (wx, wy, wz in radians about the image's axes, tx, ty in px, scale if refined): inverse Hessian, priors
        included.
    converged : bool [n]
        No further step would gain more than the tolerance.
    iterations : int
        Evaluations made.
    """

    rotations: np.ndarray
    shifts_px: np.ndarray
    scale: np.ndarray
    log_likelihood: np.ndarray
    covariance: np.ndarray
    converged: np.ndarray
    iterations: int

    def angle_sd_deg(self) -> np.ndarray:
        """Return the standard error of the orientation (root of its three angles' summed variances), degrees, [n]."""
        return np.degrees(np.sqrt(np.trace(self.covariance[:, :3, :3], axis1=1, axis2=2)))

    def shift_sd_px(self) -> np.ndarray:
        """Return the standard error of the shift per axis, px, [n]."""
        return np.sqrt(np.trace(self.covariance[:, 3:5, 3:5], axis1=1, axis2=2) / 2)


def refine_poses(
    images: ParticleSpectra,
    sigma2: np.ndarray,
    cube: Any,
    rotations: np.ndarray,
    shifts_px: np.ndarray,
    *,
    iterations: int = 12,
    max_step_deg: float = 4.0,
    max_step_px: float = 2.0,
    tolerance: float = 0.01,
    shift_sigma_px: float = np.inf,
    shift_centre_px: np.ndarray | None = None,
    rotation_sigma_deg: float = np.inf,
    rotation_centre: np.ndarray | None = None,
    scale: np.ndarray | None = None,
    with_scale: bool = False,
    noise_group: np.ndarray | None = None,
    padding: int = 2,
) -> PoseRefinement:
    """Refine poses from where they are.

    Parameters
    ----------
    images : ParticleSpectra
        n images, cropped to the radius that is to be used.
    sigma2 : ndarray [radius + 1] or [g, radius + 1]
        Noise variance of real and imaginary part each, by shell.
    cube : complex64 [2R+1, 2R+1, R+1]
        `cryopipe.search.references.reference_cube` of the map; on the side of the images.
    rotations : ndarray [n, 3, 3]
        Start poses A.
    shifts_px : ndarray [n, 2]
        Start shifts (x, y).
    iterations : int
        Most evaluations of the normal equations.
    max_step_deg, max_step_px : float
        Longest single step.
    tolerance : float
        In nats. An image is done when its next step promises, or its last step brought, a gain in log-likelihood below
        this; 0.01 is a step of a seventh of the pose's own standard error. A step that fails although it promised less
        than ten times as much ends it too: the interpolated reference has kinks that no smaller step resolves.
    shift_sigma_px : float
        Gaussian prior on each shift component about ``shift_centre_px`` (zero by default).
    shift_centre_px : ndarray [n, 2], optional
    rotation_sigma_deg : float
        Gaussian prior on the rotation away from ``rotation_centre`` (the start poses by default), per axis.
    rotation_centre : ndarray [n, 3, 3], optional
    scale : ndarray [n], optional
        Factor of the model, one by default.
    with_scale : bool
        Refine the scale as well (kept within 0.2 to 5).
    noise_group : ndarray int [n], optional
        Row of ``sigma2`` of each image.
    padding : int
        Of the cube.

    Returns
    -------
    PoseRefinement
        No image's result depends on another's.

    Raises
    ------
    InputError
        Shapes do not fit, or start values are not finite.
    """
    n = len(images)
    rotations, shifts = np.array(rotations, np.float64), np.array(shifts_px, np.float64)
    factor = np.ones(n) if scale is None else np.array(scale, np.float64)
    centre = np.zeros((n, 2)) if shift_centre_px is None else np.asarray(shift_centre_px, np.float64)
    middle = rotations.copy() if rotation_centre is None else np.asarray(rotation_centre, np.float64)
    if (
        rotations.shape != (n, 3, 3)
        or middle.shape != (n, 3, 3)
        or shifts.shape != (n, 2)
        or factor.shape != (n,)
        or centre.shape != (n, 2)
    ):
        raise InputError(
            f"{n} images with rotations {rotations.shape}, shifts {shifts.shape}: one pose for each image is needed"
        )
    if not (np.isfinite(rotations).all() and np.isfinite(shifts).all() and np.isfinite(factor).all()):
        raise InputError("start poses contain NaN or infinite values: search poses globally first")
    if iterations < 1 or min(shift_sigma_px, rotation_sigma_deg, max_step_deg, max_step_px) <= 0:
        raise InputError("iterations, largest steps and prior widths must be positive")
    variance = inverse_variance_of(images, sigma2, noise_group)
    options = StepOptions(
        iterations,
        float(np.radians(max_step_deg)),
        max_step_px,
        tolerance,
        shift_sigma_px,
        float(np.radians(rotation_sigma_deg)),
        with_scale,
        padding,
    )
    size = 6 if with_scale else 5
    log_likelihood, covariance, converged = np.zeros(n), np.zeros((n, size, size)), np.zeros(n, bool)
    made = 0
    step = max(1, _BATCH_BYTES // (16 * len(images.pixels)))
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        batch = Batch(images.subset(part), variance, noise_group, part, cube, options)
        state = refine_batch(batch, rotations[part], shifts[part], factor[part], centre[part], middle[part])
        rotations[part], shifts[part], factor[part] = state.rotations, state.shifts, state.scale
        log_likelihood[part], covariance[part], converged[part] = (
            batch.noise_alone - state.value,
            state.covariance,
            state.converged,
        )
        made = max(made, state.evaluations)
    return PoseRefinement(rotations, shifts, factor, log_likelihood, covariance, converged, made)


def refine_candidates(
    images: ParticleSpectra,
    sigma2: np.ndarray,
    cube: Any,
    rotations: np.ndarray,
    shifts_px: np.ndarray,
    *,
    operators: np.ndarray | None = None,
    same_deg: float = 1.0,
    keep_nats: float = 12.0,
    **options: Any,
) -> tuple[PoseRefinement, np.ndarray, np.ndarray]:
    """Refine m start poses of every image and keep the best of each.

    Parameters
    ----------
    images, sigma2, cube
        As for `refine_poses`.
    rotations : ndarray [n, m, 3, 3]
        Candidates.
    shifts_px : ndarray [n, m, 2]
        Their shifts.
    operators : ndarray [g, 3, 3], optional
        Symmetry, for telling whether two candidates ended in the same pose.
    same_deg : float
        Candidates that end nearer than this to the best (modulo symmetry) are the same answer.
    keep_nats : float
        Candidates that lie further below the best after four evaluations are not followed to their end.
    **options
        Of `refine_poses`; arrays have a row an image.

    Returns
    -------
    refined : PoseRefinement
        The best of each image.
    chosen : int64 [n]
        Which candidate it came from.
    confidence : float64 [n]
        Its likelihood over the sum over distinct answers: near 1 where the pose is unambiguous.
    """
    starts, start_shifts = np.asarray(rotations, np.float64), np.asarray(shifts_px, np.float64)
    n, m = starts.shape[:2]
    wanted = int(options.pop("iterations", 12))
    rough = [
        refine_poses(images, sigma2, cube, starts[:, j], start_shifts[:, j], iterations=min(_ROUGH, wanted), **options)
        for j in range(m)
    ]
    state = {name: np.stack([getattr(run, name) for run in rough], axis=1) for name in _FIELDS}
    contends = state["log_likelihood"] > state["log_likelihood"].max(axis=1, keepdims=True) - keep_nats
    for j in range(m):
        rows = np.flatnonzero(contends[:, j] & ~state["converged"][:, j])
        if wanted <= _ROUGH or len(rows) == 0:
            continue
        own = {
            name: value[rows] if name in _PER_IMAGE and value is not None else value for name, value in options.items()
        }
        own |= {"scale": state["scale"][rows, j], "rotation_centre": own.get("rotation_centre", starts[rows, j])}
        at, moved = state["rotations"][rows, j], state["shifts_px"][rows, j]
        run = refine_poses(images.subset(rows), sigma2, cube, at, moved, iterations=wanted - _ROUGH, **own)
        for name in _FIELDS:
            state[name][rows, j] = getattr(run, name)
    chosen = state["log_likelihood"].argmax(axis=1)
    best = {name: state[name][np.arange(n), chosen] for name in _FIELDS}
    refined = PoseRefinement(**best, iterations=wanted)
    return refined, chosen, _confidence(state["rotations"], state["log_likelihood"], chosen, operators, same_deg)


def _confidence(
    rotations: np.ndarray, likelihood: np.ndarray, chosen: np.ndarray, operators: np.ndarray | None, same_deg: float
) -> np.ndarray:
    """Likelihood of the best answer over the sum over distinct answers; each answer counts once, at its best."""
    n, m = likelihood.shape
    row = np.arange(n)
    order = np.argsort(-likelihood, axis=1, kind="stable")
    rotations, likelihood = rotations[row[:, None], order], likelihood[row[:, None], order]
    total = np.ones(n)
    for j in range(1, m):
        new = np.ones(n, bool)
        for earlier in range(j):
            new &= angular_distance_deg(rotations[:, j], rotations[:, earlier], operators) > same_deg
        total += np.where(new, np.exp(likelihood[:, j] - likelihood[:, 0]), 0)
    return 1 / total
