"""Robust location and scale, and running moments that can be merged: all in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cryopipe.errors import InputError

# Median absolute deviation of a normal distribution of sd 1 is 1 / 1.4826.
_MAD_TO_SD = 1.482602218505602


def robust_location_scale(values: ArrayLike) -> tuple[float, float]:
    """Return the median and 1.4826 times the median absolute deviation (the sd of normal data) of the finite values.

    Raises
    ------
    InputError
        No value is finite.
    """
    data = np.asarray(values, dtype=np.float64).ravel()
    data = data[np.isfinite(data)]
    if data.size == 0:
        raise InputError("no finite value to take a median of")
    median = float(np.median(data))
    return median, _MAD_TO_SD * float(np.median(np.abs(data - median)))


def robust_z(values: ArrayLike) -> np.ndarray:
    """Return (value - median) / robust sd; all zero where the robust sd is 0."""
    data = np.asarray(values, dtype=np.float64)
    location, scale = robust_location_scale(data)
    return np.zeros_like(data) if scale == 0.0 else (data - location) / scale


def sigma_clipped(values: ArrayLike, *, clip: float = 3.0, iterations: int = 10) -> tuple[float, float]:
    """Return mean and sd of the values within ``clip`` sd of the mean, iterated from the robust ones until stable."""
    data = np.asarray(values, dtype=np.float64).ravel()
    data = data[np.isfinite(data)]
    location, scale = robust_location_scale(data)
    count = -1
    for _ in range(iterations):
        kept = data[np.abs(data - location) <= clip * scale]
        if scale == 0.0 or kept.size in (0, count):
            break
        location, scale, count = float(kept.mean()), float(kept.std()), kept.size
    return location, scale


def normalise(image: np.ndarray, background: np.ndarray | None = None) -> np.ndarray:
    """Return the image with mean 0 and sd 1 over ``background`` (a boolean mask; everything by default): float32.

    Raises
    ------
    InputError
        The background is empty or constant.
    """
    pixels = (
        np.asarray(image, dtype=np.float64)
        if background is None
        else np.asarray(image)[..., background].astype(np.float64)
    )
    sd = float(pixels.std()) if pixels.size else 0.0
    if not sd > 0.0:
        raise InputError("the image's background is empty, constant or not finite; it cannot be normalised")
    return ((np.asarray(image) - pixels.mean()) / sd).astype(np.float32)


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of values seen so far (scalars, or arrays for statistics per pixel).

    ``Moments().add(block)`` returns a new object; ``merge`` joins those of parts, by the pairwise formulae of Chan,
    Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115.
    """

    count: int = 0
    mean: Any = 0.0
    squares: Any = 0.0

    def add(self, block: ArrayLike, *, axis: int | None = None) -> Moments:
        """Return the moments with ``block`` included: all its values, or along ``axis`` (one statistic per pixel)."""
        data = np.asarray(block, dtype=np.float64)
        count = data.size if axis is None else data.shape[axis]
        if count == 0:
            return self
        mean = data.mean(axis=axis)
        deviation = data - (mean if axis is None else np.expand_dims(mean, axis))
        return self.merge(Moments(count, mean, np.square(deviation).sum(axis=axis)))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets together."""
        count = self.count + other.count
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        squares = self.squares + other.squares + np.square(delta) * (self.count * other.count / count)
        return Moments(count, mean, squares)

    @property
    def variance(self) -> Any:
        """Variance with divisor ``count`` (0 for nothing seen)."""
        return self.squares / max(self.count, 1)

    @property
    def sd(self) -> Any:
        """Square root of :attr:`variance`."""
        return np.sqrt(self.variance)
