"""What the CPU and the array implementation of a search tile share: settings, answer, significance bins."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

REACH = 30.0
"""States more than 30 nats below the best (e^-30 = 1e-13 each) count as impossible."""
BIN_SHIFT = 19
"""A probability's bin is its float32 bit pattern without the last 19 bits: 16 bins an octave, so significance is "
"decided to 4 %."""
TOP_BIN = 127 << (23 - BIN_SHIFT)
BINS = 44 << (23 - BIN_SHIFT)
"""Bins from 1 down to 2^-44 < e^-30."""


@dataclass(frozen=True)
class TileSettings:
    """Shapes and options of one search."""

    images: int
    n_shifts: int
    n_references: int
    inverse_temperature: float
    mass: float
    n_candidates: int
    keep_significant: bool
    accumulate: bool


@dataclass
class TileAnswer:
    """What a tile keeps of its images' posteriors (host arrays).

    ``number`` columns: log evidence, maximal probability, effective number of states, dot product and norm at the best
    state. ``best`` columns: state, shift. ``candidate`` [n, m, 2]: state, shift. ``dense``: the sums need the dense
    product.
    """

    number: np.ndarray
    shift_probability: np.ndarray
    reference_probability: np.ndarray
    best: np.ndarray
    kept: np.ndarray
    candidate_log: np.ndarray
    candidate: np.ndarray
    start: np.ndarray
    dense: bool = True
    state: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    shift: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    weight: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))

    @classmethod
    def empty(cls, n: int, settings: TileSettings) -> TileAnswer:
        """Return an answer for ``n`` images, to be filled in."""
        return cls(
            number=np.zeros((n, 5)),
            shift_probability=np.zeros((n, settings.n_shifts)),
            reference_probability=np.zeros((n, settings.n_references)),
            best=np.zeros((n, 2), np.int32),
            kept=np.zeros(n, np.int64),
            candidate_log=np.full((n, settings.n_candidates), -np.inf),
            candidate=np.full((n, settings.n_candidates, 2), -1, np.int32),
            start=np.zeros(n + 1, np.int64),
        )
