"""The spread of a parameter over its units, learned from the data (empirical Bayes), and what it makes of each unit.

Unit i has the true value x_i ~ N(c_i, s²), its data the likelihood exp(l_i(x)). The width s maximises the marginal
likelihood of all units together, ``sum log ∫ N(x; c_i, s²) exp(l_i(x)) dx``, by numbers on a grid, because the likelihood
of a defocus has many maxima where the signal is weak. Three guards keep a refinement from being worse than none:

- **Junk.** A share of the units has a maximum anywhere. It is learned as the share of a second component, flat over the
  grid, and such units stay at the centre.
- **Calibration.** The likelihoods understate errors when reference or noise are wrong. Estimates from the two
  independent parts of the data tell: where they differ by more than their stated errors, all likelihoods are flattened.
- **Evidence.** A width above zero needs a likelihood ratio against zero; the estimates from both parts have to agree, which
  noise does not do whatever its size; and those from one part have to explain the other part better than the centre
  does. Otherwise the width is zero: all units are left where they are.

References: Robbins 1956 (empirical Bayes); Efron & Morris 1973, doi:10.1080/01621459.1973.10481350 (shrinkage by a
learned prior). A learned prior's estimate has on average no larger error than leaving all units at their centre.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from cryopipe.iteration.priors.profiles import Profiles

#: widths that are tried grow by this factor. A choice: a width that is 10 % wrong costs 0.3 % of the gain
_RATIO = 1.25
#: the narrowest width that is tried, in steps of the grid; a narrower normal distribution is not one on the grid
_NARROWEST = 2.0
#: nats by which a width must beat zero: by chance one time in 400, where zero is the truth (half a chi squared of one)
_NATS = 4.0
#: standard errors by which estimates from both parts must agree: one time in 700 by chance
_SIGNIFICANT = 3.0
#: weight of the prior against junk, in units for each unit: without it a flat likelihood could be called junk as well
_AGAINST_JUNK = 0.2
_MOST_JUNK = 0.5
_JUNK_STEPS = 30
#: repeats of calibration; each removes nearly all of what is left
_CALIBRATIONS = 4
_LEAST_TEMPER = 0.02
#: a width has to explain one part of the data from the other by at least this share of what the best width does. A
#: choice: the gain is flat about its maximum, and falls below a half where the width is three times too large
_USEFUL = 0.5
#: median of a squared standard normal variable
_MEDIAN = 0.4549
#: units that are worked on at a time
_CHUNK = 1024
#: of a logarithm's argument
_TINY = 1e-300


@dataclass(frozen=True)
class Spread:
    """What was learned of a parameter.

    Attributes
    ----------
    width : float
        Standard deviation of the true values about their centres; 0: the data cannot tell, all stay.
    temper : float
        Factor on the log-likelihoods, at most 1.
    junk : float
        Share of units whose likelihood says nothing of the parameter.
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
    spread : Spread
    """

    value: NDArray[np.float64]
    error: NDArray[np.float64]
    spread: Spread


@dataclass(frozen=True, eq=False)
class _Statistics:
    """Of n units at w widths, each [n, w]; ``anywhere`` [n] is the evidence of a value anywhere on the grid."""

    evidence: NDArray[np.float64]
    anywhere: NDArray[np.float64]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    gain: NDArray[np.float64]
    product: NDArray[np.float64]
    difference: NDArray[np.float64]
    expected: NDArray[np.float64]


def learn(profiles: Profiles, centre: NDArray[np.float64], group: NDArray[np.int64] | None = None) -> Shrunk:
    """Learn the spread of a parameter and return every unit's value.

    Parameters
    ----------
    profiles : Profiles
        Of n units.
    centre : float64 [n]
        Where each unit's prior has its middle.
    group : int64 [n], optional
        Units of one group have the same centre; without it all have.

    Returns
    -------
    Shrunk
        The centres, where the width is zero. Errors average over the widths that the data allow, so that they are those of
        the units' values in either case.
    """
    widths = _widths(profiles.grid)
    temper, best = 1.0, 0
    with threadpool_limits(1, user_api="blas"):
        for _ in range(_CALIBRATIONS):
            found = _statistics(profiles, centre, group, widths, temper)
            total, junk, good = _marginal(found)
            best = int(total.argmax())
            ratio = _misfit(found.difference[:, best], found.expected[:, best], good[:, best])
            if best == 0 or ratio < 1.05 or temper <= _LEAST_TEMPER:
                break
            temper = max(temper / ratio, _LEAST_TEMPER)
    gain = (good * found.gain).sum(axis=0)
    useful = gain >= max(_USEFUL * gain.max(), _TINY)
    best = int(np.where(useful, total, -np.inf).argmax())
    accepted = bool(useful[best]) and total[best] - total[0] > _NATS and _agree(found, good[:, best], best)
    weight = np.exp(total - total.max()) * np.gradient(widths)
    if accepted:
        weight = np.where(useful, weight, 0)
    weight /= weight.sum()
    spread = Spread(float(widths[best]) if accepted else 0.0, temper, float(junk[best]))
    mean = good * found.mean + (1 - good) * centre[:, None]
    value = mean @ weight if accepted else centre.copy()
    second = found.variance + (found.mean - value[:, None]) ** 2
    aside = widths**2 + (centre - value)[:, None] ** 2
    return Shrunk(value, np.sqrt((good * second + (1 - good) * aside) @ weight), spread)


def shrink(
    profiles: Profiles, centre: NDArray[np.float64], width: float, group: NDArray[np.int64] | None = None
) -> Shrunk:
    """Return every unit's value with a prior of known width; ``profiles``, ``centre`` and ``group`` as for `learn`."""
    with threadpool_limits(1, user_api="blas"):
        found = _statistics(profiles, centre, group, np.array([width]), 1.0)
    return Shrunk(found.mean[:, 0], np.sqrt(found.variance[:, 0]), Spread(width))


def normal_weights(
    grid: NDArray[np.float64], centre: NDArray[np.float64], width: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the probabilities of the grid's values [G, m] for normal distributions of ``centre`` and ``width`` [m].

    A width of zero gives the two values beside the centre, weighed linearly.
    """
    step = grid[1] - grid[0]
    away = (grid[:, None] - centre) / step
    wide = np.exp(-0.5 * (away * step / np.where(width > 0, width, 1.0)) ** 2)
    found = np.where(width > 0, wide, np.maximum(1 - np.abs(away), 0)) + _TINY
    return np.asarray(found / found.sum(axis=0))


def blocks(n: int, group: NDArray[np.int64] | None) -> Iterator[NDArray[np.int64]]:
    """Give out the rows of units that have a centre in common, some at a time."""
    rows = [np.arange(n)]
    if group is not None and n:
        order = np.argsort(group, kind="stable")
        rows = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    for own in rows:
        for start in range(0, len(own), _CHUNK):
            yield own[start : start + _CHUNK]


def _widths(grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return zero and the widths from twice the grid's step to half of its reach."""
    narrow, wide = _NARROWEST * (grid[1] - grid[0]), 0.25 * (grid[-1] - grid[0])
    count = max(int(np.log(max(wide / narrow, 1.0)) / np.log(_RATIO)), 0) + 1
    return np.concatenate([[0.0], narrow * _RATIO ** np.arange(count)])


def _statistics(
    profiles: Profiles,
    centre: NDArray[np.float64],
    group: NDArray[np.int64] | None,
    widths: NDArray[np.float64],
    temper: float,
) -> _Statistics:
    """Work through the units; all sums of a unit have one order, whatever the units beside it."""
    n, grid = len(profiles), profiles.grid
    out = _Statistics(
        *(np.zeros((n, len(widths)) if name != "anywhere" else n) for name in _Statistics.__annotations__)
    )
    for rows in blocks(n, group):
        middle = float(centre[rows[0]])
        prior = normal_weights(grid, np.full(len(widths), middle), widths)
        log = profiles.block(rows)
        top = log.max(axis=2, keepdims=True)
        likely = np.exp(temper * (log - top))
        mass = likely @ prior + _TINY  # [m, 3, w]
        mean = likely @ (prior * grid[:, None]) / mass
        variance = np.maximum(likely @ (prior * grid[:, None] ** 2) / mass - mean**2, 0)
        out.evidence[rows] = np.log(mass[:, 0]) + temper * top[:, 0]
        out.anywhere[rows] = np.log(likely[:, 0].mean(axis=1)) + temper * top[:, 0, 0]
        out.mean[rows], out.variance[rows] = mean[:, 0], variance[:, 0]
        out.gain[rows] = _gain(log[:, 2], mean[:, 1], middle, grid) + _gain(log[:, 1], mean[:, 2], middle, grid)
        # of normal likelihoods: shrinkage k and posterior variance p, hence an error k² v = k p of the estimate
        kept = 1 - np.minimum(variance[:, 1:] / np.maximum(widths**2, _TINY), 1)
        out.product[rows] = (mean[:, 1] - middle) * (mean[:, 2] - middle)
        out.difference[rows] = (mean[:, 1] - mean[:, 2]) ** 2
        out.expected[rows] = (kept * variance[:, 1:]).sum(axis=1) + (kept[:, 0] - kept[:, 1]) ** 2 * widths**2
    return out


def _gain(
    log: NDArray[np.float64], at: NDArray[np.float64], centre: float, grid: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how much likelier the data [m, G] are at values [m, w] than at the centre."""

    def value(x: NDArray[np.float64]) -> NDArray[np.float64]:
        place = np.clip((x - grid[0]) / (grid[1] - grid[0]), 0, len(grid) - 1)
        left = np.minimum(place.astype(np.int64), len(grid) - 2)
        share, row = place - left, np.arange(len(log))[:, None]
        return np.asarray(log[row, left] * (1 - share) + log[row, left + 1] * share)

    return value(at) - value(np.full((len(log), 1), centre))


def _marginal(
    found: _Statistics,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return marginal log-likelihood [w] and share of junk [w] at each width, and each unit's chance of being none [n, w]."""
    n = len(found.anywhere)
    ratio = np.exp(np.clip(found.anywhere[:, None] - found.evidence, -600, 600))  # of junk against none
    junk = np.full(ratio.shape[1], 0.05)
    for _ in range(_JUNK_STEPS):
        bad = junk * ratio / ((1 - junk) + junk * ratio)
        junk = np.minimum(bad.sum(axis=0) / (n * (1 + _AGAINST_JUNK)), _MOST_JUNK)
    good = (1 - junk) / ((1 - junk) + junk * ratio)
    total = (found.evidence + np.log((1 - junk) + junk * ratio)).sum(axis=0)
    return total + _AGAINST_JUNK * n * np.log1p(-junk), junk, good


def _agree(found: _Statistics, good: NDArray[np.float64], width: int) -> bool:
    """Tell whether estimates from both parts of the data agree by more than chance."""
    product = good * found.product[:, width]
    return bool(product.sum() > _SIGNIFICANT * np.sqrt((product**2).sum()))


def _misfit(difference: NDArray[np.float64], expected: NDArray[np.float64], good: NDArray[np.float64]) -> float:
    """Return by how much squared differences of two estimates exceed what is expected: a median, weighed by information."""
    ratio = difference / np.maximum(expected, _TINY)
    order = np.argsort(ratio, kind="stable")
    share = np.cumsum((good * expected)[order])
    return float(ratio[order[np.searchsorted(share, 0.5 * share[-1])]] / _MEDIAN) if share[-1] > 0 else 1.0
