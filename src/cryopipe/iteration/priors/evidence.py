"""Evidence of the data about one parameter of each unit (particle or micrograph): an estimate from each of two parts of the data.

The parts have only the unit in common (`cryopipe.poses.optics_evidence`: bands of Fourier shells). A deviation that both parts
show belongs to the unit. A difference of both parts is noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Evidence:
    """Normal likelihoods of a parameter of n units.

    Attributes
    ----------
    estimate, information : float64 [n, 2]
        Maximum of the likelihood of each part, and the inverse of its variance. The latter is zero if there is no information.
    reach : float
        Largest deviation of a true value from its centre, up or down.
    """

    estimate: NDArray[np.float64]
    information: NDArray[np.float64]
    reach: float

    def __len__(self) -> int:
        return len(self.estimate)

    @property
    def total(self) -> NDArray[np.float64]:
        """Information of all data, [n]."""
        return np.asarray(self.information.sum(axis=1))

    def mean(self) -> NDArray[np.float64]:
        """Return the estimate from all data, [n]. It is zero where there is no information."""
        weighed = (self.estimate * self.information).sum(axis=1)
        return np.divide(weighed, self.total, out=np.zeros(len(self)), where=self.total > 0)
