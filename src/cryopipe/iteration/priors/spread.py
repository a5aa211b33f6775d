"""The spread of a parameter over its units, learned from the data (empirical Bayes), and what it makes of each unit.

Unit i has the true value x_i ~ N(c_i, s²); its data estimate it as m_i with variance v_i. The width s maximises the
marginal likelihood of all units together, the product of N(m_i; c_i, s² + v_i), and each unit's value is the posterior
mean. Three guards keep a refinement from being worse than none:

- **Junk.** A share of the units has an estimate anywhere. It is learned as the share of a second component as wide as the
  reach of the parameter, and such units stay at the centre.
- **Calibration.** Variances are understated where reference or noise are wrong. The estimates from the two independent
  parts of the data tell: where they differ by more than their stated errors, all variances are raised.
- **Evidence.** A width above zero needs a likelihood ratio against zero; the estimates from both parts have to agree, which
  noise does not do whatever its size; and those from one part have to explain the other part better than the centre
  does. Otherwise the width is zero: all units are left where they are.

References: Robbins 1956 (empirical Bayes); Efron & Morris 1973, doi:10.1080/01621459.1973.10481350 (shrinkage by a
learned prior). A learned prior's estimate has on average no larger error than leaving all units at their centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from cryopipe.iteration.priors.evidence import Evidence

#: widths that are tried: from this share of the reach up to the reach, growing by this factor. A choice: a width that is
#: 5 % wrong costs a thousandth of the gain
_NARROWEST, _RATIO = 1e-3, 1.1
#: nats by which a width must beat zero: by chance one time in 400, where zero is the truth (half a chi squared of one)
_NATS = 4.0
#: chance that both parts agree as well as they must, where zero is the truth
_CHANCE = 1e-3
#: weight of the prior against junk, in units for each unit: without it an estimate that says nothing could be called junk
_AGAINST_JUNK = 0.2
_MOST_JUNK = 0.5
_JUNK_STEPS = 30
#: repeats of calibration; each removes nearly all of what is left, and the last ones change less than 5 %
_CALIBRATIONS = 4
_LEAST_TEMPER, _CALIBRATED = 0.02, 1.05
#: a width has to explain one part of the data from the other by at least this share of what the best width does. A
#: choice: the gain is flat about its maximum, and falls below a half where the width is three times too large
_USEFUL = 0.5
#: median of a squared standard normal variable
_MEDIAN = 0.4549


@dataclass(frozen=True)
class Spread:
    """What was learned of a parameter.

    Attributes
    ----------
    width : float
        Standard deviation of the true values about their centres; 0: the data cannot tell, all stay.
    temper : float
        Factor on the information, at most 1.
    junk : float
        Share of units whose data say nothing of the parameter.
    """

    width: float
    temper: float = 1.0
    junk: float = 0.0


@dataclass(frozen=True, eq=False)
class Shrunk:
    """Values of n units and their standard errors.

    Attributes
    ----------
    value, error : float64 [n]
    good : float64 [n]
        Chance that the unit is no junk.
    spread : Spread
    """

    value: NDArray[np.float64]
    error: NDArray[np.float64]
    good: NDArray[np.float64]
    spread: Spread


def learn(evidence: Evidence, centre: NDArray[np.float64]) -> Shrunk:
    """Learn the spread of a parameter and return every unit's value.

    Parameters
    ----------
    evidence : Evidence
        Of n units.
    centre : float64 [n]
        Where each unit's prior has its middle.

    Returns
    -------
    Shrunk
        The centres, where the width is zero. Errors average over the widths that the data allow, so that they are those of
        the units' values in either case.
    """
    widths = _widths(evidence.reach)
    away = evidence.estimate - centre[:, None]
    temper = 1.0
    for _ in range(_CALIBRATIONS):
        information = temper * evidence.information
        total, junk, good = _marginal(away, information, widths, evidence.reach)
        best = int(total.argmax())
        ratio = _misfit(away, information, widths[best], good[:, best])
        if best == 0 or ratio < _CALIBRATED or temper <= _LEAST_TEMPER:
            break
        temper = max(temper / ratio, _LEAST_TEMPER)
    gain = _gains(away, information, widths, good[:, best])
    useful = gain >= max(_USEFUL * gain.max(), np.finfo(float).tiny)
    best = int(np.where(useful, total, -np.inf).argmax())
    accepted = bool(useful[best]) and total[best] - total[0] > _NATS
    accepted = accepted and _agree(away, information, widths[best], good[:, best])
    weight = np.exp(total - total.max()) * np.gradient(widths) * (useful if accepted else 1)
    value, error = _averaged(away, information, widths, good, weight / weight.sum(), moved=accepted)
    spread = Spread(float(widths[best]) if accepted else 0.0, temper, float(junk[best]))
    return Shrunk(centre + value, error, good[:, best], spread)


def shrink(evidence: Evidence, centre: NDArray[np.float64], width: float) -> Shrunk:
    """Return every unit's value with a prior of known width; ``evidence`` and ``centre`` as for `learn`."""
    mean, variance = _posterior(evidence.mean() - centre, evidence.total, width)
    return Shrunk(centre + mean, np.sqrt(variance), np.ones(len(evidence)), Spread(width))


def _widths(reach: float) -> NDArray[np.float64]:
    count = int(np.ceil(np.log(1 / _NARROWEST) / np.log(_RATIO)))
    return np.concatenate([[0.0], reach * _NARROWEST * _RATIO ** np.arange(count)])


def _posterior(
    away: NDArray[np.float64], information: NDArray[np.float64], width: NDArray[np.float64] | float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean, as a deviation from the centre, and variance of units with estimates ``away`` from it."""
    kept = 1 / (1 + width**2 * information)
    return (1 - kept) * away, width**2 * kept


def _log_evidence(
    away: NDArray[np.float64], information: NDArray[np.float64], width: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """Return the log of N(m; c, s² + v) over N(m; c, v): zero for a width of zero and where nothing is told."""
    excess = width**2 * information
    return np.asarray(0.5 * away**2 * information * excess / (1 + excess) - 0.5 * np.log1p(excess))


def _whole(
    away: NDArray[np.float64], information: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return estimate and information [n, 1] of both parts together."""
    total = information.sum(axis=1)
    weighed = (away * information).sum(axis=1)
    return np.divide(weighed, total, out=np.zeros(len(away)), where=total > 0)[:, None], total[:, None]


def _marginal(
    away: NDArray[np.float64], information: NDArray[np.float64], widths: NDArray[np.float64], reach: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return marginal log-likelihood [w] and share of junk [w] at each width, and each unit's chance of being none [n, w]."""
    whole = _whole(away, information)
    told = _log_evidence(*whole, widths)
    ratio = np.exp(np.clip(_log_evidence(*whole, reach) - told, -600, 600))  # of junk against none
    n, junk = len(away), np.full(len(widths), 0.05)
    for _ in range(_JUNK_STEPS):
        bad = junk * ratio / ((1 - junk) + junk * ratio)
        junk = np.minimum(bad.sum(axis=0) / (n * (1 + _AGAINST_JUNK)), _MOST_JUNK)
    mixed = (1 - junk) + junk * ratio
    total = (told + np.log(mixed)).sum(axis=0) + _AGAINST_JUNK * n * np.log1p(-junk)
    return total, junk, (1 - junk) / mixed


def _gains(
    away: NDArray[np.float64],
    information: NDArray[np.float64],
    widths: NDArray[np.float64],
    good: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return by how much estimates from one part explain the other better than the centre does, at each width [w]."""
    gain = np.zeros(len(widths))
    for own, other in ((0, 1), (1, 0)):
        at, _ = _posterior(away[:, own, None], information[:, own, None], widths)
        better = information[:, other, None] * at * (away[:, other, None] - 0.5 * at)
        gain += (good[:, None] * better).sum(axis=0)
    return gain


def _agree(
    away: NDArray[np.float64], information: NDArray[np.float64], width: float, good: NDArray[np.float64]
) -> bool:
    """Tell whether estimates from both parts of the data agree by more than chance: their correlation about the centre."""
    first, second = (np.sqrt(good)[:, None] * _posterior(away, information, width)[0]).T
    squares = np.sqrt((first**2).sum() * (second**2).sum())
    # as many units as there are of equal weight
    weight = good * width**2 * information.prod(axis=1) ** 0.5 / (1 + width**2 * information).prod(axis=1) ** 0.5
    if squares == 0 or weight.sum() == 0:
        return False
    count = weight.sum() ** 2 / (weight**2).sum()
    correlation = min(float((first * second).sum() / squares), 1 - 1e-9)
    return bool(student.sf(correlation * np.sqrt(count / (1 - correlation**2)), count) < _CHANCE)


def _misfit(
    away: NDArray[np.float64], information: NDArray[np.float64], width: float, good: NDArray[np.float64]
) -> float:
    """Return by how much squared differences of both parts exceed what is expected: a median, weighed by information."""
    mean, variance = _posterior(away, information, width)
    # a shrunk estimate k m has the error k² v = k times its posterior variance, and keeps k of the true value
    kept = variance * information
    expected = (kept * variance).sum(axis=1) + (kept[:, 0] - kept[:, 1]) ** 2 * width**2
    ratio = (mean[:, 0] - mean[:, 1]) ** 2 / np.maximum(expected, np.finfo(float).tiny)
    order = np.argsort(ratio, kind="stable")
    share = np.cumsum((good * expected)[order])
    return float(ratio[order[np.searchsorted(share, 0.5 * share[-1])]] / _MEDIAN) if share[-1] > 0 else 1.0


def _averaged(
    away: NDArray[np.float64],
    information: NDArray[np.float64],
    widths: NDArray[np.float64],
    good: NDArray[np.float64],
    weight: NDArray[np.float64],
    *,
    moved: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return values, as deviations from the centre, and errors [n] over all widths; where not ``moved`` values are zero."""
    mean, variance = _posterior(*_whole(away, information), widths)
    value = (good * mean) @ weight if moved else np.zeros(len(away))
    second = good * (variance + (mean - value[:, None]) ** 2) + (1 - good) * (widths**2 + value[:, None] ** 2)
    return value, np.sqrt(second @ weight)
