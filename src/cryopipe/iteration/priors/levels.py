"""A parameter of particles whose micrographs have a mean of their own: two spreads, learned one after the other.

x_i = m_j + h_i: m_j of micrograph j, for example the error of its stated defocus, has one width; h_i, for example the
height of the particle in the ice, another. Many particles tell their micrograph's mean together, where none of them tells
its own height.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopipe.iteration.priors.evidence import Evidence
from cryopipe.iteration.priors.spread import Shrunk, Spread, learn, shrink

#: rounds in which either level is learned with the other one as it is. Measured: a third round changes widths by no step
_ROUNDS = 2


@dataclass(frozen=True, eq=False)
class Levels:
    """Values of n particles, their errors, and the spreads of micrographs and of particles about them."""

    value: NDArray[np.float64]
    error: NDArray[np.float64]
    micrographs: Spread
    particles: Spread


def learn_levels(evidence: Evidence, micrograph: NDArray[np.int64] | None, *, width: float | None = None) -> Levels:
    """Learn both spreads of a parameter about zero and return every particle's value.

    Parameters
    ----------
    evidence : Evidence
        Of n particles.
    micrograph : int64 [n], optional
        Number of each particle's micrograph, from 0; None: it is not known, and the particles spread about zero.
    width : float, optional
        Spread of the particles about zero, where it is known; nothing is learned then.
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
    # what the prior keeps of an error of its centre: all of it where the width is zero
    kept = np.minimum((own.error / own.spread.width) ** 2, 1) if own.spread.width > 0 else 1.0
    error = np.hypot(own.error, kept * shared.error[micrograph])
    return Levels(own.value, error, shared.spread, own.spread)


def evidence_of_means(evidence: Evidence, micrograph: NDArray[np.int64], own: Shrunk) -> Evidence:
    """Return what the particles say of their micrographs' means.

    A particle's own deviation is noise here, the same in both parts: each part is given half of the information that both
    have together.

    Parameters
    ----------
    evidence : Evidence
        Of n particles.
    micrograph : int64 [n]
        Each one's micrograph.
    own : Shrunk
        What was learned of the particles.
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
