"""Likelihood of the shifts of all patches and frames. :mod:`joint_motion` maximises it, in steps of known variance.

The noise is white with power 1, and the spectrum of the specimen has the power a(k) in each of the n frames. Then the
likelihood of shifts s is exp Σ_k a / (1 + n a) |Σ_t Y_t(k) exp(-2πi k·s_t)|², with the specimen itself integrated out.
So the weight of a frequency follows from a(k). It is measured in each ring, as the mean product of two different
frames. Rings in which frames have nothing in common get no weight. As the alignment improves, finer rings get weight.

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
from cryopipe.movies.motion.patch_spectra import RING_A, PatchSpectra

#: A ring counts where its common power exceeds this many standard errors.
_SIGNIFICANT = 3.0
#: Coherence of two frames above which camera and specimen cannot be told apart, because the frames are shifted too little.
_SAME_PLACE = 0.9
#: A patch with n times the mean power weighs n times as much, within these limits.
_LEAST_POWER, _MOST_POWER = 0.05, 20.0


@dataclass(frozen=True)
class Sweep:
    """Slopes [p, n, 2], expected curvatures [p, 2], common power [p, rings], log-likelihood, all at some shifts."""

    slopes: np.ndarray
    curvature: np.ndarray
    common: np.ndarray
    likelihood: float


@dataclass(frozen=True)
class Motions:
    """Result of a round of the refinement, and the values from which it follows.

    Attributes
    ----------
    track : ndarray ``[n, 2]``
        Global shifts (x, y), px.
    extra : ndarray ``[p, n, 2]``
        Shifts of the patches, in addition to the shifts at which they were cut.
    strength : ndarray ``[p]``
        Power of the patches in multiples of the mean.
    determined : float
        Number of parameters of the track that the data determine.
    power : ndarray ``[rings]``
        Power a(k) of the specimen. Empty before the first round.
    common : ndarray ``[p, rings]``
        Mean product of two frames.
    precision : ndarray ``[p, 2]``
        1/variance of a patch's shifts in one frame.
    bent : ndarray ``[p, n, 2]``
        Measured shifts of the patches minus those of the track.
    bent_part : ndarray ``[p, n, 2]`` or 0
        Values of the fitted field for them.
    coefficients : ndarray or None
        Coefficients of the field.
    parameters : float
        Number of parameters of the field that the data determine.
    """

    track: np.ndarray
    extra: np.ndarray
    strength: np.ndarray
    determined: float = 0.0
    power: np.ndarray = field(default_factory=lambda: np.zeros(0))
    common: np.ndarray = field(default_factory=lambda: np.zeros(0))
    precision: np.ndarray = field(default_factory=lambda: np.zeros(0))
    bent: np.ndarray = field(default_factory=lambda: np.zeros(0))
    bent_part: np.ndarray = field(default_factory=lambda: np.zeros(1))
    coefficients: np.ndarray | None = None
    parameters: float = 0.0


class MotionLikelihood:
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
    ) -> Sweep:
        """Evaluate the likelihood and its slopes.

        Parameters
        ----------
        extra : ndarray ``[p, n, 2]``
            Shifts in addition to the global ones.
        power : ndarray ``[rings]``
            Power a(k) of the specimen.
        strength : ndarray ``[p]``
            Power of the patches in multiples of the mean.
        finest_k : float
            Frequency up to which rings are used, 1/Å.
        steps : bool
            Whether to compute the slopes.
        """
        s = self.patches
        lengths = s.lengths_within(finest_k + 1.0 / RING_A)  # the ring that contains finest_k is complete

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
        return Sweep(slopes, curvature, common, float(likelihood.sum()))

    def strengths(self, common: np.ndarray, power: np.ndarray) -> np.ndarray:
        """Return the power of every patch [p] in multiples of the mean."""
        weight = power / (1.0 + self.n * power) * self.waves_squared.sum(axis=0)
        result: np.ndarray = np.clip(common @ weight / (power @ weight), _LEAST_POWER, _MOST_POWER)
        return result

    def likelihood(self, state: Motions, extra: np.ndarray) -> float:
        """Return the log-likelihood of the shifts ``extra`` [p, n, 2] with the powers of ``state``."""
        finest = float(self.patches.ring_k[np.flatnonzero(state.power)[-1]])
        return self.sweep(extra, state.power, state.strength, finest, steps=False).likelihood
