"""What the data say of one parameter of each unit (particle or micrograph): log-likelihoods on a common grid.

A unit's data come in two parts that share nothing but the unit (`cryopipe.poses.optics_evidence`: bands of Fourier shells).
Where both say the same it is the unit's; where they differ it is noise. Values are relative: a constant for each unit and
part does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline


class Profiles(Protocol):
    """Log-likelihoods of n units on a grid of G equidistant values of the parameter."""

    @property
    def grid(self) -> NDArray[np.float64]:
        """Values of the parameter, [G]."""

    def __len__(self) -> int: ...

    def block(self, rows: Any) -> NDArray[np.float64]:
        """Return ``[len(rows), 3, G]``: of all data, of the first part, of the second."""


@dataclass(frozen=True, eq=False)
class SampledProfiles:
    """Likelihoods that were computed on a coarse grid and are interpolated by cubic splines.

    Attributes
    ----------
    values : float [n, 2, C] or [n, 3, C]
        Of both parts, on the coarse grid; or of all data and of both parts, where all data say more than their sum.
    coarse : float64 [C]
        Equidistant.
    finer : int
        Steps of the grid in one of the coarse one.
    """

    values: NDArray[Any]
    coarse: NDArray[np.float64]
    finer: int

    @property
    def grid(self) -> NDArray[np.float64]:
        """Values of the parameter, [G]."""
        return np.linspace(self.coarse[0], self.coarse[-1], (len(self.coarse) - 1) * self.finer + 1)

    def __len__(self) -> int:
        return len(self.values)

    def block(self, rows: Any) -> NDArray[np.float64]:
        """Return ``[len(rows), 3, G]``: of all data, of the first part, of the second."""
        own = CubicSpline(self.coarse, np.asarray(self.values[rows], np.float64), axis=2)(self.grid)
        if own.shape[1] == 3:
            return np.asarray(own)
        return np.concatenate([own.sum(axis=1, keepdims=True), own], axis=1)


@dataclass(frozen=True, eq=False)
class NormalProfiles:
    """Likelihoods that are normal in the parameter.

    Attributes
    ----------
    estimate, information : float64 [n, 2]
        Maximum of each part's likelihood, and the inverse of its variance; zero where it tells nothing.
    grid : float64 [G]
        Equidistant.
    """

    estimate: NDArray[np.float64]
    information: NDArray[np.float64]
    grid: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.estimate)

    def block(self, rows: Any) -> NDArray[np.float64]:
        """Return ``[len(rows), 3, G]``: of all data, of the first part, of the second."""
        away = self.grid - self.estimate[rows][:, :, None]
        own = -0.5 * self.information[rows][:, :, None] * away**2
        return np.concatenate([own.sum(axis=1, keepdims=True), own], axis=1)
