"""How a search weighs what it finds, and what it returns of it."""

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
        Grey scale of each image; 1 by default.
    sd : float
        Standard deviation of a about its mean. Where it is positive, the likelihood is averaged over a Gaussian prior of
        a in closed form, state by state, and sums use each image's posterior mean and mean square at its best state. A
        bright particle then explains itself by its scale instead of by a wrong pose. A wide prior (above 0.5) admits
        inverted contrast.
    """

    mean: np.ndarray | None = None
    sd: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.sd < np.inf:
            raise InputError(f"standard deviation {self.sd} of the grey scale: it must be zero or a positive number")

    def subset(self, index: Any) -> GreyScale:
        """Return the grey scales of the images at ``index``."""
        return self if self.mean is None else replace(self, mean=np.asarray(self.mean)[index])

    def means(self, n: int) -> np.ndarray:
        """Return the mean grey scale of each of ``n`` images, float32 [n].

        Raises
        ------
        InputError
            Another number of values, or one that is not positive and finite.
        """
        mean = np.ones(n, np.float32) if self.mean is None else np.asarray(self.mean, np.float32)
        if mean.shape != (n,) or not np.isfinite(mean).all() or (n > 0 and mean.min() <= 0):
            raise InputError(f"grey scales of shape {mean.shape}: a positive number for each of {n} images is needed")
        return mean


@dataclass(frozen=True)
class SearchOptions:
    """How a search weighs states, and what it returns.

    Attributes
    ----------
    inverse_temperature : float
        Multiplies the log-likelihood, not the priors (annealing).
    candidates : int
        How many of the best orientations to return for every image.
    accumulate : bool
        Return the sums of the M-step.
    keep_significant : bool
        Return the sparse posterior: 12 bytes for each entry, of which a flat posterior can have ``n s o``.
    significant_mass : float
        Share of the probability that the significant states hold; the M-step uses these, renormalised to one.
    """

    inverse_temperature: float = 1.0
    candidates: int = 0
    accumulate: bool = False
    keep_significant: bool = False
    significant_mass: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.inverse_temperature < np.inf:
            raise InputError(f"inverse temperature {self.inverse_temperature}: it must be zero or a positive number")
        if not 0 < self.significant_mass <= 1:
            raise InputError(f"significant mass {self.significant_mass}: it must lie above 0 and at most at 1")
        if self.candidates < 0:
            raise InputError(f"{self.candidates} candidates: the number must not be negative")
