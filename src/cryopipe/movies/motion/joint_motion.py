"""Joint refinement of global and local motion: every patch of every frame against the sum of all frames.

The shifts are those of a track, one for every frame, and of the spline field of :mod:`local_alignment`. One step of
Fisher scoring is taken for all of them at once. The slope of their likelihood (:mod:`likelihood`) over its expected
curvature is a measured shift of each patch in each frame, and its variance is known. The smooth track and the smooth field
follow from these by their evidence (:mod:`priors`). No patch needs a correlation peak of its own: at 0.7 electrons per
pixel and frame, on a faint micrograph, none has one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cryopipe.movies.motion.likelihood import MotionLikelihood, Motions
from cryopipe.movies.motion.local_alignment import LocalMotion, control_points, spline_values
from cryopipe.movies.motion.patch_spectra import RING_A, PatchSpectra
from cryopipe.movies.motion.priors import fit_field, smooth_track
from cryopipe.movies.motion.trust import Agreement, frame_agreement, likelihood_over_noise

#: The first rounds use the frequencies of the global search (its filter ends there), the others use all. Largest numbers of them.
_COARSE = 2.5
_ROUNDS = (8, 8)
_SETTLED_PX = (0.1, 0.05)
#: Rings are used up to this multiple of the finest one that frames share, and at least up to this many rings beyond it.
_BEYOND, _RINGS_BEYOND = 1.5, 3
#: A local motion beyond these limits is not the motion of a specimen (RELION also rejects at 10 px).
_LARGEST_RMS_PX, _LARGEST_SHIFT_PX = 10.0, 20.0
_FEWEST_FRAMES = 4
#: Evidence if frames have nothing in common in any ring. Noise with a ring that is significant by chance has more.
_NO_EVIDENCE = -1000.0


@dataclass(frozen=True)
class RefinedMotion:
    """Result of the refinement of a movie.

    Attributes
    ----------
    shifts_px : ndarray ``[n, 2]``
        Global shifts (x, y), zero in the reference frame. All are zero without evidence, because shifts of noise are random.
    local : LocalMotion or None
        Local field.
    no_local : str
        Why there is no local field. Empty if there is one.
    evidence : float
        Logarithm of the likelihood that the frames share a specimen, over that of noise which was aligned as well as
        possible. Noise has less than 0, simulated movies at 20 e/Å² have some hundreds, usual movies have thousands.
    agreement : Agreement or None
        How much each frame shares with the others. None if they have nothing in common.
    """

    shifts_px: np.ndarray
    local: LocalMotion | None
    no_local: str
    evidence: float
    agreement: Agreement | None


class _Bend:
    """The spline field over the patches, minus its mean over time, because a field that is constant in time is not motion."""

    def __init__(self, patches: PatchSpectra, shape: tuple[int, int, int]) -> None:
        self.sizes = control_points(shape, patches.pixel_size_A, patches.grid)
        time = spline_values(np.arange(shape[0]), shape[0], self.sizes[0])
        self.time = time - time.mean(axis=0)
        rows = spline_values(patches.centres[0], shape[1], self.sizes[1])
        columns = spline_values(patches.centres[1], shape[2], self.sizes[2])
        self.space = np.einsum("ay,bx->abyx", rows, columns).reshape(rows.shape[0] * columns.shape[0], -1)

    def fit(self, state: Motions) -> Motions:
        """Return ``state`` with the field that fits its patches."""
        coefficients, parameters = fit_field(self.time, self.space, state.bent, state.precision, self.sizes)
        flat = coefficients.reshape(2, self.sizes[0], -1)
        at_patches = np.einsum("nt,pq,atq->pna", self.time, self.space, flat, optimize=True)
        return replace(
            state,
            extra=state.extra + at_patches,
            bent_part=at_patches,
            coefficients=coefficients,
            parameters=parameters,
        )


def refine_motion(
    patches: PatchSpectra,
    shifts_px: np.ndarray,
    *,
    shape: tuple[int, int],
    reference: int,
    resolution_A: float,
    local: bool,
    threads: int = 1,
) -> RefinedMotion:
    """Refine the global shifts of the frames and find the local motion.

    Parameters
    ----------
    patches : PatchSpectra
        Cut at ``shifts_px``.
    shifts_px : ndarray ``[n, 2]``
        Global shifts (x, y), correct to a few Å.
    shape : tuple of int
        Unbinned frame (y, x).
    reference : int
        Frame whose shift is zero everywhere.
    resolution_A : float
        Resolution of the search that found ``shifts_px``.
    local : bool
        Whether to look for a local field.
    threads : int
        Threads. The result does not depend on it.

    Returns
    -------
    RefinedMotion
        There is no local field if it was not asked for, if there are too few patches or frames, if the frames share no
        specimen, if the field gains less likelihood than it has parameters (Akaike 1974, doi:10.1109/TAC.1974.1100705), or
        if no specimen can move so.
    """
    n = len(shifts_px)
    if n < 2:
        return RefinedMotion(shifts_px.copy(), None, "one frame", 1.0, None)
    work = MotionLikelihood(patches, shifts_px, resolution_A, threads)
    unfit = _unfit(patches, n, local)
    bend = None if unfit else _Bend(patches, (n, *shape))
    state = Motions(shifts_px, np.zeros((len(patches.values), n, 2)), np.ones(len(patches.values)))
    for finest, rounds, settled in zip((_COARSE / resolution_A, np.inf), _ROUNDS, _SETTLED_PX, strict=True):
        # first the common power of all rings of this stage, then the rounds
        common = work.sweep(state.extra, np.zeros(len(patches.ring_k)), state.strength, finest, steps=False).common
        for _ in range(rounds):
            new = _round(work, bend, state, common, finest)
            if new is None:
                break
            change = new.extra - state.extra
            state, common = new, new.common
            if np.abs(change - change.mean(axis=1, keepdims=True)).max() < settled:
                break
    track = state.track - state.track[reference]
    if not len(state.power):
        return RefinedMotion(np.zeros((n, 2)), None, unfit or "the frames share nothing", _NO_EVIDENCE, None)
    agreement = frame_agreement(work, state)
    found = None
    if bend is not None and state.coefficients is not None:
        found = LocalMotion(state.coefficients, (n, *shape), reference, _excess(state), patches.grid)
        unfit = _unlike_a_specimen(work, found)
    straight = work.likelihood(state, state.extra - state.bent_part)
    evidence = likelihood_over_noise(work, state, straight, (n, *shape))
    if found is not None and not unfit:
        bent = work.likelihood(state, state.extra)
        surplus = likelihood_over_noise(work, state, bent, (n, *shape)) - state.parameters
        if surplus <= 0:
            unfit = "the frames share too little"
        elif bent - straight <= state.parameters:
            unfit = "no bend beyond the noise"
        else:
            evidence = surplus
    if evidence <= 0:  # the alignment is random, so the frames stay where they are
        return RefinedMotion(np.zeros((n, 2)), None, unfit or "the frames share too little", evidence, agreement)
    return RefinedMotion(track, None if unfit else found, unfit, evidence, agreement)


def _unfit(patches: PatchSpectra, n: int, local: bool) -> str:
    """Return why no local motion can be fitted, or an empty text."""
    if not local:
        return "not asked for"
    if patches.grid == (1, 1):
        return "the frame is too small for patches"
    return "" if n >= _FEWEST_FRAMES else "too few frames"


def _round(
    work: MotionLikelihood, bend: _Bend | None, state: Motions, common: np.ndarray, finest_k: float
) -> Motions | None:
    """Take one step for all shifts. Return None if the frames have nothing in common."""
    power = work.specimen_power(common.mean(axis=0), state.track)
    if not power.any():
        return None
    strength = work.strengths(common, power)
    # finer rings are used as soon as the rings next to them have something in common
    last = work.patches.ring_k[np.flatnonzero(power)[-1]]
    finest_k = min(finest_k, max(_BEYOND * last, last + _RINGS_BEYOND / RING_A))
    now = work.sweep(state.extra, power, strength, finest_k)
    precision = now.curvature
    step = now.slopes / precision[:, None]
    # moving all frames together changes nothing, so their mean is kept
    measured = state.extra + step - step.mean(axis=1, keepdims=True)
    whole = np.einsum("pna,pa->na", measured, precision / precision.sum(axis=0))
    track, determined = smooth_track(work.start + whole, precision.sum(axis=0))
    extra = np.broadcast_to(track - work.start, measured.shape)
    new = Motions(track, extra, strength, determined, power, now.common, precision, measured - whole)
    return new if bend is None else bend.fit(new)


def _excess(state: Motions) -> float:
    """Return the rms deviation, per axis, of the patches' shifts from the field beyond their noise, px."""
    rest = (state.bent - state.bent_part) ** 2 - 1.0 / state.precision[:, None]
    return float(np.sqrt(max(rest.mean(), 0.0)))


def _unlike_a_specimen(work: MotionLikelihood, local: LocalMotion) -> str:
    """Return why a specimen cannot move like this, or an empty text."""
    if local.residual_px > _LARGEST_RMS_PX:
        return f"patches differ from a smooth field by {local.residual_px:.1f} px rms"
    y, x = work.patches.centres
    largest = max(float(np.quantile(np.abs(local.at(t, y, x)), 0.975)) for t in range(work.n))
    return f"a specimen does not bend by {largest:.1f} px" if largest > _LARGEST_SHIFT_PX else ""
