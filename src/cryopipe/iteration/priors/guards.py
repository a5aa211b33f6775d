"""Tests of an estimated width: whether two independent parts of the data agree, and how much they differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from cryopipe.iteration.priors.likelihood import posterior

#: probability that both parts agree well enough although the true width is zero
_CHANCE = 1e-3
#: median of a squared standard normal variable
_MEDIAN = 0.4549


def agree(away: NDArray[np.float64], information: NDArray[np.float64], width: float, good: NDArray[np.float64]) -> bool:
    """Return whether estimates from both parts of the data agree more than by chance, by their correlation about the centre.

    Parameters
    ----------
    away, information : float64 [n, 2]
        Estimates from both parts, as deviations from the centre, and their information.
    width : float
    good : float64 [n]
        Probability that a unit is not junk.
    """
    first, second = (np.sqrt(good)[:, None] * posterior(away, information, width)[0]).T
    squares = np.sqrt((first**2).sum() * (second**2).sum())
    # number of units of equal weight that have the same effect
    weight = good * width**2 * information.prod(axis=1) ** 0.5 / (1 + width**2 * information).prod(axis=1) ** 0.5
    if squares == 0 or weight.sum() == 0:
        return False
    count = weight.sum() ** 2 / (weight**2).sum()
    correlation = min(float((first * second).sum() / squares), 1 - 1e-9)
    return bool(student.sf(correlation * np.sqrt(count / (1 - correlation**2)), count) < _CHANCE)


def misfit(
    away: NDArray[np.float64], information: NDArray[np.float64], width: float, good: NDArray[np.float64]
) -> float:
    """Return the ratio of observed to expected squared differences of both parts: a median, weighted by the expected ones.

    Parameters
    ----------
    away, information : float64 [n, 2]
        Estimates from both parts, as deviations from the centre, and their information.
    width : float
    good : float64 [n]
        Probability that a unit is not junk.
    """
    mean, variance = posterior(away, information, width)
    # a shrunk estimate k m has the error k² v, which is k times its posterior variance; its mean is k times the true value
    kept = variance * information
    expected = (kept * variance).sum(axis=1) + (kept[:, 0] - kept[:, 1]) ** 2 * width**2
    ratio = (mean[:, 0] - mean[:, 1]) ** 2 / np.maximum(expected, np.finfo(float).tiny)
    order = np.argsort(ratio, kind="stable")
    share = np.cumsum((good * expected)[order])
    return float(ratio[order[np.searchsorted(share, 0.5 * share[-1])]] / _MEDIAN) if share[-1] > 0 else 1.0
