"""What the data say of one parameter of each unit (particle or micrograph): an estimate from each of two parts of them.

The parts share nothing but the unit (`cryopipe.poses.optics_evidence`: bands of Fourier shells). What both say is the
unit's; what they differ in is noise.
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
        Maximum of each part's likelihood, and the inverse of its variance; zero where it tells nothing.
    reach : float
        A true value is within plus and minus this of its centre.
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
        """Return the estimate from all data, [n]; zero where they tell nothing."""
        weighed = (self.estimate * self.information).sum(axis=1)
        return np.divide(weighed, self.total, out=np.zeros(len(self)), where=self.total > 0)
