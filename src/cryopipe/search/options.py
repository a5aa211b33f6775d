"""Options of a search: how it weighs states, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cryopipe.errors import InputError


@dataclass(frozen=True, eq=False)
class GreyScale:
    """The grey scale a of each image: the model of an image is X = a C Y + noise.

    Attributes
    ----------
    mean : float [n], optional
        Grey scale of each image. The default is 1.
    sd : float
        Standard deviation of a about its mean. If it is positive, the likelihood of each state is averaged over a Gaussian
        prior of a in closed form. Sums then use the posterior mean and mean square at the best state of each image. So a
        bright particle is explained by its scale and not by a wrong pose. A wide prior (above 0.5) allows inverted contrast.
    """

    mean: np.ndarray | None = None
    sd: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.sd < np.inf:
            raise InputError(f"the standard deviation {self.sd} of the grey scale must be zero or a positive number.")

    def subset(self, index: Any) -> GreyScale:
        """Return the grey scales of the images at ``index``."""
        return self if self.mean is None else replace(self, mean=np.asarray(self.mean)[index])

    def means(self, n: int) -> np.ndarray:
        """Return the mean grey scale of each of ``n`` images, float32 [n].

        Raises
        ------
        InputError
            The number of values is wrong, or one is not positive and finite.
        """
        mean = np.ones(n, np.float32) if self.mean is None else np.asarray(self.mean, np.float32)
        if mean.shape != (n,) or not np.isfinite(mean).all() or (n > 0 and mean.min() <= 0):
            raise InputError(
                f"the grey scales have the shape {mean.shape}. Give a positive number for each of {n} images."
            )
        return mean


@dataclass(frozen=True)
class SearchOptions:
    """How a search weighs states, and what it returns.

    Attributes
    ----------
    inverse_temperature : float
        Factor of the log-likelihood, but not of the priors (annealing).
    candidates : int
        Number of best orientations to return for every image.
    accumulate : bool
        Return the sums of the M-step.
    keep_significant : bool
        Return the sparse posterior. It takes 12 bytes per entry, and a flat posterior can have ``n s o`` entries.
    significant_mass : float
        Share of the probability that the significant states have. The M-step uses these states, renormalised to one.
    """

    inverse_temperature: float = 1.0
    candidates: int = 0
    accumulate: bool = False
    keep_significant: bool = False
    significant_mass: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.inverse_temperature < np.inf:
            raise InputError(f"the inverse temperature {self.inverse_temperature} must be zero or a positive number.")
        if not 0 < self.significant_mass <= 1:
            raise InputError(f"the significant mass {self.significant_mass} must be above 0 and at most 1.")
        if self.candidates < 0:
            raise InputError(f"the number of candidates, {self.candidates}, must not be negative.")
