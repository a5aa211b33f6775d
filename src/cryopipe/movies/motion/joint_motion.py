"""Joint refinement of global and local motion: every patch of every frame against the sum of all frames.

The noise is white with power 1, and the spectrum of the specimen has the power a(k) in each of the n frames. Then the
likelihood of shifts s is exp Σ_k a / (1 + n a) |Σ_t Y_t(k) exp(-2πi k·s_t)|², with the specimen itself integrated out.
So the weight of a frequency follows from a(k). It is measured in each ring, as the mean product of two different
frames. Rings in which frames have nothing in common get no weight. As the alignment improves, finer rings get weight.

The shifts are those of a track, one for every frame, and of the spline field of :mod:`local_alignment`. One step of
Fisher scoring is taken for all of them at once. The slope of the likelihood over its expected curvature is a measured
shift of each patch in each frame, and its variance is known. The smooth track and the smooth field follow from these
by their evidence (:mod:`priors`). No patch needs a correlation peak of its own: at 0.7 electrons per pixel and frame,
on a faint micrograph, none has one.

What is fixed to the camera (an imperfect gain) is also coherent, between unshifted frames. Where frames moved by enough
to distinguish the two, its part in a(k) is subtracted. Elsewhere only frequencies up to the resolution of the global
search are used.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import j0

from cryopipe.kernels.coherence import coherent_sum, shift_gradients
from cryopipe.movies.motion.local_alignment import LocalMotion, control_points, spline_values
from cryopipe.movies.motion.patch_spectra import RING_A, PatchSpectra
from cryopipe.movies.motion.priors import fit_field, smooth_track

#: A ring counts where its common power exceeds this many standard errors.
_SIGNIFICANT = 3.0
#: Coherence of two frames above which camera and specimen cannot be told apart, because the frames are shifted too little.
_SAME_PLACE = 0.9
#: First the frequencies of the global search (its filter ends there), then all; rounds of each, at most.
_COARSE = 2.5
_ROUNDS = (8, 8)
_SETTLED_PX = (0.1, 0.02)
#: A patch with n times the mean power weighs n times as much, within these limits.
_LEAST_POWER, _MOST_POWER = 0.05, 20.0
#: A local model beyond these is not the motion of a specimen (RELION rejects at 10 px, too).
_LARGEST_RMS_PX, _LARGEST_SHIFT_PX = 10.0, 20.0
_FEWEST_FRAMES = 4


@dataclass(frozen=True)
class _Sweep:
    """Slopes [p, n, 2], expected curvatures [p, 2], common power [p, rings], log-likelihood, all at some shifts."""

    slopes: np.ndarray
    curvature: np.ndarray
    common: np.ndarray
    likelihood: float


@dataclass(frozen=True)
class _Field:
    """Fitted local motion: coefficients, values at the patches [p, n, 2], number of parameters that the data determine."""

    coefficients: np.ndarray
    at_patches: np.ndarray
    parameters: float


@dataclass(frozen=True)
class _State:
    """Result of a round: track [n, 2], shifts in addition to the global ones [p, n, 2], power of patches [p].

    ``bent`` are the measured shifts of the patches [p, n, 2] minus the track, ``precision`` [p, 2] is 1/variance of these.
    """

    track: np.ndarray
    extra: np.ndarray
    strength: np.ndarray
    power: np.ndarray = field(default_factory=lambda: np.zeros(0))
    common: np.ndarray = field(default_factory=lambda: np.zeros(0))
    precision: np.ndarray = field(default_factory=lambda: np.zeros(0))
    bent: np.ndarray = field(default_factory=lambda: np.zeros(0))
    bend: _Field | None = None


class _Refinement:
    """The patches of a movie with all that does not change from round to round."""

    def __init__(self, patches: PatchSpectra, shifts_px: np.ndarray, resolution_A: float, threads: int) -> None:
        self.patches, self.start, self.resolution_A = patches, shifts_px, resolution_A
        self.threads = max(threads, 1)
        count, self.n, _ = patches.values.shape
        self.counts = patches.ring_sums(np.ones(len(patches.ring)))
        waves = 2.0 * np.pi * patches.frequencies()
        self.waves_squared = np.stack([patches.ring_sums(w**2) for w in waves])  # [2, rings]
        self.own = np.stack(self._each(self._power_of_frames))
        still = np.stack(self._each(lambda p: self._common(p, patches.cuts_px[p] - patches.cuts_px[p, :1])[0]))
        self.camera = still.mean(axis=0)
        self.error = 1.0 / np.sqrt(self.n * (self.n - 1.0) * np.maximum(self.counts, 1.0) * count)

    def _each(self, work: Callable[[int], Any]) -> list[Any]:
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(work, range(len(self.patches.values))))

    def _power_of_frames(self, patch: int) -> np.ndarray:
        values = self.patches.values[patch]
        return self.patches.ring_sums((values.real**2 + values.imag**2).sum(axis=0, dtype=np.float64))

    def _common(self, patch: int, shifts: np.ndarray, lengths: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        """Return the mean product of two frames in each ring, the sum of all frames, and its power in each ring."""
        s = self.patches
        total = coherent_sum(s.values[patch], shifts, s.ky, s.kx, s.starts, s.lengths if lengths is None else lengths)
        power = s.ring_sums(total.real.astype(np.float64) ** 2 + total.imag.astype(np.float64) ** 2)
        pairs = self.n * (self.n - 1.0) * np.maximum(self.counts, 1.0)
        return (power - self.own[patch]) / pairs, total, power

    def specimen_power(self, common: np.ndarray, shifts_px: np.ndarray) -> np.ndarray:
        """Return a(k) of each ring, zero where it is not significant, from the common power of moved frames [rings]."""
        distance = np.hypot(*(shifts_px[:, None] - shifts_px[None]).transpose(2, 0, 1))
        off = ~np.eye(self.n, dtype=bool)
        k = self.patches.ring_k * self.patches.pixel_size_A
        alike = np.array([j0(2.0 * np.pi * f * distance[off]).mean() for f in k])
        apart = np.abs(alike) < _SAME_PLACE
        rest = np.where(apart, 1.0 - alike**2, 1.0)
        power = np.where(apart, common - alike * np.maximum(self.camera, 0.0), common) / rest
        error = np.where(apart, np.hypot(1.0, alike) / rest, 1.0) * self.error
        known = apart | (self.patches.ring_k <= 1.0 / self.resolution_A)
        used = known & (power > _SIGNIFICANT * error)
        used[0] = False
        return np.where(used, power, 0.0)

    def sweep(
        self, extra: np.ndarray, power: np.ndarray, strength: np.ndarray, finest_k: float, *, steps: bool = True
    ) -> _Sweep:
        """Evaluate the likelihood at the global shifts plus ``extra`` [p, n, 2], with ``steps`` also its slopes."""
        s = self.patches
        lengths = s.lengths_within(finest_k + 1.0 / RING_A)  # the ring that holds finest_k is complete

        def one(patch: int) -> tuple[np.ndarray, ...]:
            shifts = extra[patch] + s.offsets_px[patch]
            common, total, size = self._common(patch, shifts, lengths)
            own = power * strength[patch]
            weight = own / (1.0 + self.n * own)
            slopes = np.zeros((self.n, 2))
            if steps:
                weights = weight.astype(np.float32)[s.ring]
                slopes = shift_gradients(s.values[patch], total, weights, shifts, s.ky, s.kx, s.starts, lengths)
            return slopes, 2.0 * self.n * self.waves_squared @ (weight * own), common, (weight * size).sum()

        slopes, curvature, common, likelihood = (np.array(part) for part in zip(*self._each(one), strict=True))
        common[:, s.ring_k > finest_k] = 0.0
        return _Sweep(slopes, curvature, common, float(likelihood.sum()))

    def strengths(self, common: np.ndarray, power: np.ndarray) -> np.ndarray:
        """Return the power of every patch [p] in multiples of the mean."""
        weight = power / (1.0 + self.n * power) * self.waves_squared.sum(axis=0)
        result: np.ndarray = np.clip(common @ weight / (power @ weight), _LEAST_POWER, _MOST_POWER)
        return result


class _Bend:
    """The spline field over the patches, minus its mean over time: a field that is constant in time is not motion."""

    def __init__(self, patches: PatchSpectra, shape: tuple[int, int, int]) -> None:
        self.sizes = control_points(shape, patches.pixel_size_A, patches.grid)
        time = spline_values(np.arange(shape[0]), shape[0], self.sizes[0])
        self.time = time - time.mean(axis=0)
        rows = spline_values(patches.centres[0], shape[1], self.sizes[1])
        columns = spline_values(patches.centres[1], shape[2], self.sizes[2])
        self.space = np.einsum("ay,bx->abyx", rows, columns).reshape(rows.shape[0] * columns.shape[0], -1)

    def fit(self, target: np.ndarray, precision: np.ndarray) -> _Field:
        coefficients, parameters = fit_field(self.time, self.space, target, precision, self.sizes)
        flat = coefficients.reshape(2, self.sizes[0], -1)
        return _Field(coefficients, np.einsum("nt,pq,atq->pna", self.time, self.space, flat, optimize=True), parameters)


def refine_motion(
    patches: PatchSpectra,
    shifts_px: np.ndarray,
    *,
    shape: tuple[int, int],
    reference: int,
    resolution_A: float,
    local: bool,
    threads: int = 1,
) -> tuple[np.ndarray, LocalMotion | None]:
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
        Of the search that found ``shifts_px``.
    local : bool
        Whether to look for a local field.
    threads : int
        Threads. The result does not depend on it.

    Returns
    -------
    shifts_px : ndarray ``[n, 2]``
        Refined; the ones given where the frames have nothing in common.
    local : LocalMotion or None
        None if it was not asked for, if there are too few patches or frames, if the frames share no specimen, if
        the field gains less likelihood than it has parameters (Akaike 1974, doi:10.1109/TAC.1974.1100705), or if
        no specimen can move so.
    """
    n = len(shifts_px)
    if n < 2:
        return shifts_px.copy(), None
    work = _Refinement(patches, shifts_px, resolution_A, threads)
    bend = _Bend(patches, (n, *shape)) if local and patches.grid != (1, 1) and n >= _FEWEST_FRAMES else None
    state = _State(shifts_px, np.zeros((len(patches.values), n, 2)), np.ones(len(patches.values)))
    for finest, rounds, settled in zip((_COARSE / resolution_A, np.inf), _ROUNDS, _SETTLED_PX, strict=True):
        # one look at all rings of this stage, then rounds
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
    if bend is None or state.bend is None:
        return track, None
    found = LocalMotion(state.bend.coefficients, (n, *shape), reference, _excess(state), patches.grid)
    return track, found if _is_motion(work, state, found) else None


def _round(work: _Refinement, bend: _Bend | None, state: _State, common: np.ndarray, finest_k: float) -> _State | None:
    """Take one step for all shifts; None where the frames have nothing in common."""
    power = work.specimen_power(common.mean(axis=0), state.track)
    if not power.any():
        return None
    strength = work.strengths(common, power)
    now = work.sweep(state.extra, power, strength, finest_k)
    precision = now.curvature
    step = now.slopes / precision[:, None]
    # moving all frames together changes nothing, so their mean is kept
    measured = state.extra + step - step.mean(axis=1, keepdims=True)
    whole = np.einsum("pna,pa->na", measured, precision / precision.sum(axis=0))
    track = smooth_track(work.start + whole, precision.sum(axis=0))
    extra = np.broadcast_to(track - work.start, measured.shape)
    fitted = None
    if bend is not None:
        fitted = bend.fit(measured - whole, precision)
        extra = extra + fitted.at_patches
    return _State(track, extra, strength, power, now.common, precision, measured - whole, fitted)


def _excess(state: _State) -> float:
    """Return the rms deviation, per axis, of the patches' shifts from the field beyond their noise, px."""
    if state.bend is None:
        return 0.0
    rest = (state.bent - state.bend.at_patches) ** 2 - 1.0 / state.precision[:, None]
    return float(np.sqrt(max(rest.mean(), 0.0)))


def _is_motion(work: _Refinement, state: _State, local: LocalMotion) -> bool:
    """Tell whether the frames share a specimen, whether it bends, and whether a specimen can move so."""
    if state.bend is None or local.residual_px > _LARGEST_RMS_PX:
        return False
    y, x = work.patches.centres
    largest = max(float(np.quantile(np.abs(local.at(t, y, x)), 0.975)) for t in range(work.n))
    if largest > _LARGEST_SHIFT_PX:
        return False
    bent, straight = (
        work.sweep(extra, state.power, state.strength, np.inf, steps=False).likelihood
        for extra in (state.extra, state.extra - state.bend.at_patches)
    )
    if bent - _likelihood_of_noise(work, state) < state.bend.parameters + _cost_of_alignment(work, state, local.shape):
        return False
    return bent - straight > state.bend.parameters


def _likelihood_of_noise(work: _Refinement, state: _State) -> float:
    """Return what the likelihood must exceed if there is a specimen: the log of its variances over those of noise."""
    total = np.log1p(work.n * state.power * state.strength[:, None])  # [p, rings]
    return float((work.counts * total).sum())


def _cost_of_alignment(work: _Refinement, state: _State, shape: tuple[int, int, int]) -> float:
    """Return the likelihood that aligned noise gains: one for every fitted number, and the choice among all shifts.

    The fitted numbers are the track, the powers of the rings and those of the patches. Every frame but one is put at
    the best of many independent places: as many as the frame has squares of the size of the search's resolution. This
    gains up to the logarithm of their number (MacKay 2003, Information Theory, Inference, and Learning Algorithms,
    chapter 28: the Occam factor).
    """
    places = float(np.prod(shape[1:])) * (work.patches.pixel_size_A / work.resolution_A) ** 2
    fitted = 2 * (work.n - 1) + np.count_nonzero(state.power) + len(state.strength)
    return float(fitted + (work.n - 1) * np.log(max(places, 1.0)))
