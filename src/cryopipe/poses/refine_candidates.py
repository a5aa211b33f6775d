"""Several start poses of each image, refined at a rising radius until one is left.

At every radius the candidates are refined for four evaluations. Then candidates far below the best, and those that reached
the pose of a better one, are dropped. At the images' own radius the remaining candidates are refined to convergence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from cryopipe.errors import InputError
from cryopipe.kernels.devices import Resources
from cryopipe.poses.candidates import Candidates, Move, angular_nyquist_deg
from cryopipe.poses.model import ImageModel, PosePrior, Steps
from cryopipe.poses.refine_poses import HERE, NO_PRIOR, POSE_ALONE, STEPS, refine_poses
from cryopipe.poses.refinement import PoseRefinement
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import ReferenceMap

#: evaluations after which candidates are compared
_ROUGH = 4
#: in nats. Smaller gains are below the rounding of float32 sums
_LEAST_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Contest:
    """How candidates compete.

    Attributes
    ----------
    operators : ndarray [g, 3, 3], optional
        Symmetry, for the decision whether two candidates ended in the same pose.
    same_deg : float
        Candidates that end nearer than this to the best (modulo symmetry) are the same pose.
    keep_nats : float
        Candidates whose log-likelihood is further than this below the best are dropped.
    radii : tuple of int
        Rising radii before the images' own radius, such as those of `cryopipe.poses.candidates.marching_radii`.
    diameter_A : float, optional
        Particle diameter. If it is given, the poses are refined until a further step would be shorter than a quarter of
        the angular Nyquist, resolution / diameter in radians, at the images' radius.
    """

    operators: np.ndarray | None = None
    same_deg: float = 1.0
    keep_nats: float = 12.0
    radii: tuple[int, ...] = ()
    diameter_A: float | None = None


_PLAIN = Contest()


def refine_candidates(
    images: ParticleSpectra, noise: NoiseModel, reference: ReferenceMap, rotations: np.ndarray, shifts_px: np.ndarray,
    *, contest: Contest = _PLAIN, model: ImageModel = POSE_ALONE, prior: PosePrior = NO_PRIOR, steps: Steps = STEPS,
    resources: Resources = HERE,
) -> tuple[PoseRefinement, np.ndarray, np.ndarray]:  # fmt: skip
    """Refine m start poses of every image and keep the best of each.

    Parameters
    ----------
    images, noise, reference
        As for `refine_poses`.
    rotations : ndarray [n, m, 3, 3]
        Candidates.
    shifts_px : ndarray [n, m, 2]
        Their shifts.
    contest : Contest
        Radii, and when a candidate is dropped.
    model, prior, steps, resources
        As for `refine_poses`. If the prior of the rotation has no centre, its centre is each candidate's start.

    Returns
    -------
    refined : PoseRefinement
        The best candidate of each image.
    chosen : int64 [n]
        Its number among the candidates.
    confidence : float64 [n]
        Its likelihood over the sum over distinct poses. It is near 1 if the pose is unambiguous.
    """
    starts, start_shifts = np.asarray(rotations, np.float64), np.asarray(shifts_px, np.float64)
    if starts.ndim != 4 or starts.shape[:1] != (len(images),) or start_shifts.shape != (*starts.shape[:2], 2):
        raise InputError(
            f"{len(images)} images with candidates {starts.shape}, shifts {start_shifts.shape}. Give [n, m, 3, 3] and "
            "[n, m, 2]."
        )
    field = Candidates(starts, start_shifts, model, prior)

    def moved_at(radius: int, steps: Steps) -> Move:
        inside = images.crop(radius)

        def move(
            rows: np.ndarray, poses: np.ndarray, shifts: np.ndarray, model: ImageModel, prior: PosePrior
        ) -> PoseRefinement:
            some = inside if len(rows) == len(images) else inside.subset(rows)
            return refine_poses(
                some, noise.subset(rows), reference, poses, shifts, model=model, prior=prior, steps=steps,
                resources=resources,
            )  # fmt: skip

        return move

    last = images.pixels.radius
    rough = replace(steps, evaluations=min(_ROUGH, steps.evaluations))
    for radius in sorted({r for r in contest.radii if r < last}):
        field.climb(field.alive, moved_at(radius, rough))
        field.thin(contest.operators, contest.same_deg, contest.keep_nats)
    field.climb(field.alive, moved_at(last, rough))
    contends = field.contenders(contest.keep_nats) & ~field.state["converged"]
    if steps.evaluations > _ROUGH:
        field.climb(contends, moved_at(last, replace(steps, evaluations=steps.evaluations - _ROUGH)))
    if contest.diameter_A is not None:
        _follow(field, moved_at, steps, images, contest.diameter_A)
    refined, chosen = field.best()
    return refined, chosen, field.confidence(contest.operators, contest.same_deg)


def _follow(
    field: Candidates, moved_at: Callable[[int, Steps], Move], steps: Steps, images: ParticleSpectra, diameter_A: float
) -> None:
    """Refine the best candidates until a further step cannot exceed a quarter of the angular Nyquist.

    A step whose predicted gain is below the tolerance t is shorter than sqrt(2 t) standard errors. So t must be small
    enough.
    """
    radius, tolerance = images.pixels.radius, steps.tolerance
    quarter = 0.25 * angular_nyquist_deg(
        diameter_A=diameter_A, box=images.box, pixel_size_A=images.pixel_size_A, radius=radius
    )
    best, chosen = field.best()
    left = np.sqrt(2 * tolerance) * best.angle_sd_deg()
    coarse = np.flatnonzero((left > quarter) & np.isfinite(left))
    if len(coarse) == 0:
        return
    which = np.zeros(field.alive.shape, bool)
    which[coarse, chosen[coarse]] = True
    finer = tolerance * float((quarter / left[coarse].max()) ** 2)
    last = replace(steps, evaluations=2 * _ROUGH, tolerance=max(finer, _LEAST_TOLERANCE))
    field.climb(which, moved_at(radius, last))
