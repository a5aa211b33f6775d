"""Robust statistics."""

from __future__ import annotations

import numpy as np

MAD_TO_SD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation: 1 / Φ⁻¹(3/4)."""


def robust_sd(values: np.ndarray, centre: float | None = None) -> float:
    """Return 1.4826 times the median absolute deviation. It is the standard deviation of normal data without outliers.

    Parameters
    ----------
    values : ndarray
        Any shape, not empty, without NaN.
    centre : float, optional
        Value from which deviations are measured. The median by default.
    """
    return MAD_TO_SD * float(np.median(np.abs(values - (np.median(values) if centre is None else centre))))
