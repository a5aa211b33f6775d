"""Units with a normal distribution about a centre: posterior, evidence for a width, share of units without information."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: weight of the prior against junk per unit. Without it, an estimate without information could be called junk.
_AGAINST_JUNK = 0.2
_MOST_JUNK = 0.5
_JUNK_STEPS = 30


def posterior(
    away: NDArray[np.float64], information: NDArray[np.float64], width: NDArray[np.float64] | float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return posterior means and variances of units. Means and the estimates ``away`` are deviations from the centre."""
    kept = 1 / (1 + width**2 * information)
    return (1 - kept) * away, width**2 * kept


def log_evidence(
    away: NDArray[np.float64], information: NDArray[np.float64], width: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """Return log N(m; c, s² + v) - log N(m; c, v). It is zero for a width of zero and for units without information."""
    excess = width**2 * information
    return np.asarray(0.5 * away**2 * information * excess / (1 + excess) - 0.5 * np.log1p(excess))


def both_parts(
    away: NDArray[np.float64], information: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return estimate and information [n, 1] of both parts together."""
    total = information.sum(axis=1)
    weighed = (away * information).sum(axis=1)
    return np.divide(weighed, total, out=np.zeros(len(away)), where=total > 0)[:, None], total[:, None]


def marginal(
    away: NDArray[np.float64], information: NDArray[np.float64], widths: NDArray[np.float64], reach: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return at each width the marginal log-likelihood [w], the share of junk [w] and each unit's chance to be good [n, w].

    Parameters
    ----------
    away, information : float64 [n, 2]
        Estimates from both parts, as deviations from the centre, and their information.
    widths : float64 [w]
    reach : float
        Width of the values of junk units.
    """
    whole = both_parts(away, information)
    told = log_evidence(*whole, widths)
    ratio = np.exp(np.clip(log_evidence(*whole, reach) - told, -600, 600))  # of junk to good units
    n, junk = len(away), np.full(len(widths), 0.05)
    for _ in range(_JUNK_STEPS):
        bad = junk * ratio / ((1 - junk) + junk * ratio)
        junk = np.minimum(bad.sum(axis=0) / (n * (1 + _AGAINST_JUNK)), _MOST_JUNK)
    mixed = (1 - junk) + junk * ratio
    total = (told + np.log(mixed)).sum(axis=0) + _AGAINST_JUNK * n * np.log1p(-junk)
    return total, junk, (1 - junk) / mixed
