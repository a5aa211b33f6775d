"""The result of a pose search: best state, evidence and spread of every image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from cryopipe.projection.pose_sums import PoseSums


@dataclass(frozen=True)
class SignificantStates:
    """Sparse posterior in CSR layout: for each image the smallest set of states that has the requested probability.

    The threshold on the probability of a single state is accurate to 4 %.

    Attributes
    ----------
    start : int64 [n + 1]
        Entries of image i are ``start[i]:start[i + 1]``.
    state, shift : int32 [entries]
        Row of the references and of the shift grid.
    weight : float32 [entries]
        Probability. The entries of an image sum to one.
    """

    start: np.ndarray
    state: np.ndarray
    shift: np.ndarray
    weight: np.ndarray

    def of_image(self, image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (state, shift, weight) of one image."""
        part = slice(self.start[image], self.start[image + 1])
        return self.state[part], self.shift[part], self.weight[part]


@dataclass(frozen=True)
class Posterior:
    """The result of `search_poses`, with one row per image.

    Log-likelihoods are relative to "noise alone": log p(X | pose) - log p(X | no particle).

    Attributes
    ----------
    best_state : int32 [n]
        Row of ``references`` with the highest joint posterior (state and shift).
    best_shift : int32 [n]
        Row of the shift grid.
    shift_px : float64 [n, 2]
        Best shift (x, y), with the base shift: the shift to apply to centre the image.
    mean_shift_px : float64 [n, 2]
        Posterior mean of the same.
    log_evidence : float64 [n]
        log Σ exp(inverse temperature x log-likelihood + log priors).
    max_probability : float64 [n]
        Probability of the best state.
    n_effective : float64 [n]
        exp(entropy): the effective number of states of the posterior.
    n_significant : int64 [n]
        Number of states in the significant set.
    reference_probability : float64 [n, r]
        Probability of each reference, summed over orientations and shifts.
    best_dot, best_norm : float64 [n]
        Re⟨C X e^{..}/σ², Y⟩ and Σ C²|Y|²/σ² at the best state.
    grey_scale : float64 [n]
        Posterior mean of the grey scale at the best state (not below zero), or the given one if it is fixed.
    candidate_state, candidate_shift : int32 [n, m]
        The m best orientations (each at its best shift), best first. -1 if there are fewer.
    candidate_log : float64 [n, m]
        Log posterior of the candidates relative to the best.
    significant : SignificantStates or None
    sums : PoseSums or None
    """

    best_state: np.ndarray
    best_shift: np.ndarray
    shift_px: np.ndarray
    mean_shift_px: np.ndarray
    log_evidence: np.ndarray
    max_probability: np.ndarray
    n_effective: np.ndarray
    n_significant: np.ndarray
    reference_probability: np.ndarray
    best_dot: np.ndarray
    best_norm: np.ndarray
    grey_scale: np.ndarray
    candidate_state: np.ndarray
    candidate_shift: np.ndarray
    candidate_log: np.ndarray
    significant: SignificantStates | None
    sums: PoseSums | None

    def scale(self) -> np.ndarray:
        """Return the factor a of the best fit ``X = a C Y`` at the best state of each image, float64 [n]."""
        return self.best_dot / np.maximum(self.best_norm, np.finfo(np.float32).tiny)

    def best_log_likelihood(self) -> np.ndarray:
        """Return the log-likelihood at the best state, without priors and at temperature one, float64 [n]."""
        return self.best_dot - 0.5 * self.best_norm

    @staticmethod
    def joined(parts: Sequence[Posterior]) -> Posterior:
        """Put the posteriors of consecutive blocks of images together. Sums are added in that order.

        All parts must come from the same references, shifts and options.
        """
        first = parts[0]
        values: dict[str, Any] = {
            f.name: np.concatenate([getattr(part, f.name) for part in parts])
            for f in fields(Posterior)
            if f.name not in ("significant", "sums")
        }
        lists = [part.significant for part in parts if part.significant is not None]
        significant = None
        if lists:
            ends = np.cumsum([0, *(one.start[-1] for one in lists)])
            start = [one.start[:-1] + end for one, end in zip(lists, ends[:-1], strict=True)]
            entries = (np.concatenate([getattr(one, name) for one in lists]) for name in ("state", "shift", "weight"))
            significant = SignificantStates(np.concatenate([*start, ends[-1:]]), *entries)
        sums = first.sums
        for part in parts[1:]:
            if sums is not None and part.sums is not None:
                sums = sums.merge(part.sums)
        return Posterior(**values, significant=significant, sums=sums)
