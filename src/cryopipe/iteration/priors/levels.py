"""A parameter of particles whose micrographs have a mean of their own: two spreads, learned one after the other.

x_i = m_j + h_i: m_j of micrograph j, for example the error of its stated defocus, has one width; h_i, for example the
height of the particle in the ice, another. Many particles tell their micrograph's mean together, where none of them tells
its own height.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from cryopipe.iteration.priors.profiles import Profiles, SampledProfiles
from cryopipe.iteration.priors.spread import Spread, blocks, learn, normal_weights

#: rounds in which either level is learned with the other one as it is. Measured: a third round changes widths by no step
_ROUNDS = 2


#: steps in one of the particles' grid: many particles tell their mean this much better than one of them tells its own value
_FINER = 4


@dataclass(frozen=True, eq=False)
class Levels:
    """Values of n particles, their errors, and the spreads of micrographs and of particles about them."""

    value: NDArray[np.float64]
    error: NDArray[np.float64]
    micrographs: Spread
    particles: Spread


def learn_levels(profiles: Profiles, micrograph: NDArray[np.int64] | None) -> Levels:
    """Learn both spreads of a parameter about zero and return every particle's value.

    Parameters
    ----------
    profiles : Profiles
        Of n particles.
    micrograph : int64 [n], optional
        Number of each particle's micrograph, from 0; None: it is not known, and the particles spread about zero.
    """
    n = len(profiles)
    centre = np.zeros(n)
    if micrograph is None:
        alone = learn(profiles, centre)
        return Levels(alone.value, alone.error, Spread(0.0), alone.spread)
    count = int(micrograph.max(initial=-1)) + 1
    own = learn(profiles, centre, micrograph)
    for _ in range(_ROUNDS):
        shared = learn(micrograph_profiles(profiles, micrograph, count, own.spread), np.zeros(count))
        centre = shared.value[micrograph]
        own = learn(profiles, centre, micrograph)
    # what the prior keeps of an error of its centre: all of it where the width is zero
    kept = np.ones(n) if own.spread.width == 0 else np.minimum((own.error / own.spread.width) ** 2, 1)
    error = np.hypot(own.error, kept * shared.error[micrograph])
    return Levels(own.value, error, shared.spread, own.spread)


def micrograph_profiles(
    profiles: Profiles, micrograph: NDArray[np.int64], count: int, spread: Spread
) -> SampledProfiles:
    """Return the likelihoods of micrographs' means, the particles' own deviations integrated out.

    Parameters
    ----------
    profiles : Profiles
        Of n particles.
    micrograph : int64 [n]
        Each one's micrograph.
    count : int
        Micrographs.
    spread : Spread
        Of the particles about their micrograph.
    """
    grid = profiles.grid
    smooth = normal_weights(grid, grid, np.full(len(grid), spread.width))
    total = np.zeros((count, 3, len(grid)))
    with threadpool_limits(1, user_api="blas"):
        for rows in blocks(len(profiles), micrograph):
            log = spread.temper * profiles.block(rows)
            top = log.max(axis=2, keepdims=True)
            likely = np.exp(log - top)
            mixed = (1 - spread.junk) * (likely @ smooth) + spread.junk * likely.mean(axis=2, keepdims=True)
            total[micrograph[rows[0]]] += (np.log(mixed + 1e-300)).sum(axis=0)
    return SampledProfiles(total, grid, _FINER)
