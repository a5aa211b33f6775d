"""A parameter of particles that also has a mean in each micrograph: two spreads, estimated one after the other.

The model is x_i = m_j + h_i. The mean m_j of micrograph j has one width. An example is the error of the defocus of the
micrograph. The deviation h_i of particle i has another width. An example is the height of the particle in the ice. Many
particles together determine the mean of their micrograph, even if no particle determines its own height.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopipe.iteration.priors.evidence import Evidence
from cryopipe.iteration.priors.spread import Shrunk, Spread, learn, shrink

#: number of rounds. In each, one level is estimated while the other is fixed. Measured: a third round does not change the widths.
_ROUNDS = 2


@dataclass(frozen=True, eq=False)
class Levels:
    """Values of n particles, their errors, and the spreads of micrographs and of particles about them."""

    value: NDArray[np.float64]
    error: NDArray[np.float64]
    micrographs: Spread
    particles: Spread


def learn_levels(evidence: Evidence, micrograph: NDArray[np.int64] | None, *, width: float | None = None) -> Levels:
    """Estimate both spreads of a parameter about zero, and return the value of every particle.

    Parameters
    ----------
    evidence : Evidence
        Evidence of n particles.
    micrograph : int64 [n], optional
        Number of the micrograph of each particle, from 0. None: it is not known, and the particles spread about zero.
    width : float, optional
        Spread of the particles about zero, if it is known. Then no spread is estimated.
    """
    zero = np.zeros(len(evidence))
    if micrograph is None or width is not None:
        alone = learn(evidence, zero) if width is None else shrink(evidence, zero, width)
        return Levels(alone.value, alone.error, Spread(0.0), alone.spread)
    own = learn(evidence, zero)
    for _ in range(_ROUNDS):
        means = evidence_of_means(evidence, micrograph, own)
        shared = learn(means, np.zeros(len(means)))
        own = learn(evidence, shared.value[micrograph])
    # share of an error of the centre that remains in the value: all of it if the width is zero
    kept = np.minimum((own.error / own.spread.width) ** 2, 1) if own.spread.width > 0 else 1.0
    error = np.hypot(own.error, kept * shared.error[micrograph])
    return Levels(own.value, error, shared.spread, own.spread)


def evidence_of_means(evidence: Evidence, micrograph: NDArray[np.int64], own: Shrunk) -> Evidence:
    """Return the evidence of the particles about the means of their micrographs.

    The deviation of a particle from the mean is noise here. It is the same in both parts. Therefore the information that both
    parts have together is divided between them.

    Parameters
    ----------
    evidence : Evidence
        Evidence of n particles.
    micrograph : int64 [n]
        Number of the micrograph of each particle.
    own : Shrunk
        Values and spread of the particles.
    """
    told, spread = own.spread.temper * evidence.information, own.spread.width
    left = own.good / (1 + spread**2 * told.sum(axis=1))
    weight = told * left[:, None]
    count = int(micrograph.max(initial=-1)) + 1
    information, weighed = np.zeros((count, 2)), np.zeros((count, 2))
    np.add.at(information, micrograph, weight)
    np.add.at(weighed, micrograph, weight * evidence.estimate)
    estimate = np.divide(weighed, information, out=np.zeros((count, 2)), where=information > 0)
    return Evidence(estimate, information, evidence.reach)
