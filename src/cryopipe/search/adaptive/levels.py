"""The levels of an adaptive search, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryopipe.errors import InputError
from cryopipe.search.grid import angular_step_deg

FINEST_ORDER = 7
"""Deepest order of a grid (0.5°): continuous refinement follows."""


@dataclass(frozen=True)
class Level:
    """One pass: cells of HEALPix ``order`` and shift squares of ``shift_step_px``, scored inside ``radius``."""

    order: int
    shift_step_px: float
    radius: int


@dataclass(frozen=True)
class AdaptiveOptions:
    """What an adaptive search may miss, and what it returns.

    Attributes
    ----------
    miss_probability : float
        Probability that the cell with the true pose is pruned on the way, all levels together, if the map is right and
        the noise is that of the noise model.
    guarantee : {"truth", "best"}
        ``"truth"``: as above. ``"best"``: besides, no state is pruned that could be significant (a thousandth of the
        best) in an exhaustive search at the full radius, with the same probability of failure: a cell stays if it
        passes either rule. It costs more the more signal lies at high frequencies.
    most_states : int
        Cap on the surviving states of an image and level, best first; the image is flagged then.
    candidates : int
        Orientations to return for `cryopipe.poses.refine_candidates.refine_candidates`.
    """

    miss_probability: float = 1e-3
    guarantee: str = "truth"
    most_states: int = 20_000
    candidates: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.miss_probability < 0.5:
            raise InputError(f"miss probability {self.miss_probability}: it must lie between 0 and 0.5")
        if self.guarantee not in ("truth", "best"):
            raise InputError(f"guarantee {self.guarantee!r}: give 'truth' or 'best'")
        if self.most_states < 1:
            raise InputError(f"at most {self.most_states} states: at least one must survive")


@dataclass(frozen=True)
class LevelReport:
    """What a level did: states scored and kept over all images, their share of the exhaustive grid of that level.

    ``median_loss`` is the allowance (nats) that pruning made for the coarseness of the cells.
    """

    level: Level
    scored: int
    exhaustive: int
    kept: int
    median_loss: float


@dataclass(frozen=True)
class AdaptivePosterior:
    """The answer of `search_adaptive`, a row an image; log-likelihoods are relative to noise alone.

    Attributes
    ----------
    rotations : float64 [n, 3, 3]
        Best pose.
    shift_px : float64 [n, 2]
        Best shift (x, y), base shift included.
    log_likelihood : float64 [n]
        At the best state, inside the full radius.
    log_evidence : float64 [n]
        log Σ exp(log-likelihood + log prior) over the states of the last level (priors sum to one over its whole grid).
    max_probability, n_effective : float64 [n]
        Probability of the best state, and exp(entropy), over the states of the last level.
    candidate_rotations, candidate_shifts_px : float64 [n, m, 3, 3], [n, m, 2]
        The best orientations, at least two steps of the last grid apart, each at its best shift; the best one repeated
        where there are fewer.
    candidate_log : float64 [n, m]
        Their log posterior relative to the best; -inf for repetitions.
    capped : bool [n]
        More states survived than ``most_states``: the guarantee does not hold for this image.
    reports : tuple of LevelReport
    """

    rotations: np.ndarray
    shift_px: np.ndarray
    log_likelihood: np.ndarray
    log_evidence: np.ndarray
    max_probability: np.ndarray
    n_effective: np.ndarray
    candidate_rotations: np.ndarray
    candidate_shifts_px: np.ndarray
    candidate_log: np.ndarray
    capped: np.ndarray
    reports: tuple[LevelReport, ...]


def plan_levels(
    box: int,
    radius: int,
    diameter_px: float,
    *,
    root_order: int = 3,
    coarseness: float = 0.8,
    shift_periods: float = 0.125,
    final_fraction: float = 0.5,
    final_shift_px: float = 0.5,
) -> tuple[Level, ...]:
    """Return the levels of a search.

    A level's radius is that at which its angular step is ``coarseness`` times the angular resolution (resolution over
    particle diameter, in radians). Radii double until the full one; the grid is refined beyond that until the step is
    below ``final_fraction`` of the angular resolution. The shift step starts at ``shift_periods`` of the finest period
    and halves from level to level down to ``final_shift_px``.

    Coarser cells at a higher radius cost nothing more, but the true pose can then explain its image much better than
    the centre of its cell, and pruning has to allow for it; at too low a radius views hardly differ. The defaults lie
    between.

    Parameters
    ----------
    box, radius : int
        Of the images, and the outermost shell that is to decide.
    diameter_px : float
        Particle diameter.
    root_order : int
        HEALPix order of the first, dense level.
    """
    if not 0 < diameter_px <= box:
        raise InputError(f"particle diameter {diameter_px:g} px in a box of {box} px: it must be positive and fit")
    if min(coarseness, shift_periods, final_fraction, final_shift_px) <= 0:
        raise InputError(
            f"coarseness {coarseness}, shift periods {shift_periods}, final fraction {final_fraction}, final shift "
            f"{final_shift_px} px: all must be positive"
        )
    levels: list[Level] = []
    shift_step = 0.0
    for order in range(root_order, FINEST_ORDER + 1):
        step = np.radians(angular_step_deg(order))
        reach = min(radius, max(2, int(coarseness * box / (diameter_px * step))))
        if not levels:
            shift_step = shift_periods * box / reach
        elif shift_step > final_shift_px:
            shift_step /= 2
        levels.append(Level(order, shift_step, reach))
        if len(levels) > 1 and reach == radius and step <= final_fraction * box / (diameter_px * radius):
            break
    return tuple(levels)
