"""Tests of an aligned movie: whether its frames share a specimen, and whether each of them agrees with the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryopipe.movies.motion.likelihood import MotionLikelihood, Motions

#: A frame shares nothing if its share is below this part of the mean of all frames, by so many standard errors.
#: Only coarse detail is compared. Over 50 e/Å² it fades to two thirds of its mean (Grant & Grigorieff 2015).
_NOTHING, _ERRORS = 0.25, 3.0


@dataclass(frozen=True)
class Agreement:
    """How much each frame shares with the sum of the others in coarse detail.

    Attributes
    ----------
    shares : ndarray ``[n]``
        Mean product with the frames of the majority, in multiples of the mean product among these. 0 means nothing.
    errors : ndarray ``[n]``
        Their standard errors.
    """

    shares: np.ndarray
    errors: np.ndarray

    def lost(self) -> np.ndarray:
        """Return the frames (from 0) that share nothing with the others."""
        return np.flatnonzero(self.shares + _ERRORS * self.errors < _NOTHING)


def frame_agreement(work: MotionLikelihood, state: Motions) -> Agreement | None:
    """Compare every frame with the sum of the others at frequencies of the global search. Return None if no ring counts."""
    patches, n = work.patches, work.n
    power = np.where(patches.ring_k <= 1.0 / work.resolution_A, state.power, 0.0)
    used = np.flatnonzero(power[patches.ring])
    if not len(used):
        return None
    own = power[patches.ring[used]]
    waves = -2j * np.pi * patches.frequencies()[:, used]
    products, variance = np.zeros((n, n)), 0.0
    for values, extra, offset, strength in zip(
        patches.values, state.extra, patches.offsets_px, state.strength, strict=True
    ):
        placed = values[:, used] * np.exp((extra + offset) @ waves)
        common = own * strength
        weight = common / (1.0 + n * common)
        products += ((weight * placed) @ placed.conj().T).real
        variance += 0.5 * float((weight**2 * (1.0 + common) ** 2).sum())
    np.fill_diagonal(products, 0.0)
    kept = _majority(products, variance)
    others = kept.sum() - kept
    mean = float(products[np.ix_(kept, kept)].sum() / max(kept.sum() * (kept.sum() - 1), 1))
    if mean <= 0:
        return None
    return Agreement(products @ kept / np.maximum(others, 1) / mean, np.sqrt(variance / np.maximum(others, 1)) / mean)


def _majority(products: np.ndarray, variance: float) -> np.ndarray:
    """Return the frames [n] with which all are compared: every frame, or the larger part if the movie falls into two.

    After a jump that could not be followed, frames agree only with those of their own part. ``products`` [n, n] are those
    of all pairs, and each of them has the given variance.
    """
    n = len(products)
    every = np.ones(n, dtype=bool)
    parts = [np.arange(n) < first for first in range(1, n)]

    def across(part: np.ndarray) -> float:
        within = sum(products[np.ix_(p, p)].sum() for p in (part, ~part))
        pairs = part.sum() * (n - part.sum())
        level = within / max(n * (n - 1) - 2 * pairs, 1)
        bound = float(products[np.ix_(part, ~part)].mean()) + _ERRORS * float(np.sqrt(variance / pairs))
        return bound / level if level > 0 else np.inf

    best = min(parts, key=across, default=every)
    if n < 3 or across(best) >= _NOTHING:
        return every
    return best if 2 * best.sum() >= n else ~best


def likelihood_over_noise(
    work: MotionLikelihood, state: Motions, likelihood: float, shape: tuple[int, int, int]
) -> float:
    """Return by how much a likelihood exceeds what aligned noise of the same powers can reach. Above 0 there is a specimen.

    Noise gains likelihood in two ways. Every fitted number gains one: the parameters of the track that the data determine,
    the powers of the rings and those of the patches. And every free place of the track is the best of many independent
    places: as many as the frame has squares of the size of the search's resolution. This gains up to the logarithm of their
    number (MacKay 2003, Information Theory, Inference, and Learning Algorithms, chapter 28: the Occam factor). A rough
    track has one free place for each frame. A smooth track has fewer, whatever the number of frames.

    Parameters
    ----------
    work, state : MotionLikelihood, Motions
        The patches, and the result of their refinement.
    likelihood : float
        Log-likelihood of the shifts.
    shape : (int, int, int)
        Frames and frame (n, y, x).
    """
    variances = np.log1p(work.n * state.power * state.strength[:, None])  # [p, rings]
    places = float(np.prod(shape[1:])) * (work.patches.pixel_size_A / work.resolution_A) ** 2
    fitted = state.determined + np.count_nonzero(state.power) + len(state.strength)
    chance = 0.5 * state.determined * float(np.log(max(places, 1.0)))
    return likelihood - float((work.counts * variances).sum()) - fitted - chance
