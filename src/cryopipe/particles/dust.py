"""Find and replace dust: pixels that do not come from the specimen (hot pixels, X-rays, dirt)."""

from __future__ import annotations

from typing import Literal

import numpy as np


def remove_dust(
    image: np.ndarray, *, threshold: float, fill: Literal["random", "median"], rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Replace pixels that differ from the mean by more than ``threshold`` standard deviations.

    Mean and standard deviation are computed twice, the second time without the dust found at first.

    Parameters
    ----------
    image : float32 ``[y, x]``
    threshold : float
        Limit in standard deviations (Xmipp: 3.5 to 5).
    fill : {"random", "median"}
        Noise with the sd of the image about the mean of the good neighbours, or the median of these (as in Xmipp's code).
    rng : Generator
        Random numbers of this micrograph.

    Returns
    -------
    image, replaced : float32 ``[y, x]`` and int
        A new image, and the number of replaced pixels.
    """
    mean, sd = float(image.mean(dtype=np.float64)), float(image.std(dtype=np.float64))
    bad = np.abs(image - mean) > threshold * sd
    if bad.any():
        good = image[~bad]
        mean, sd = float(good.mean(dtype=np.float64)), float(good.std(dtype=np.float64))
        bad = np.abs(image - mean) > threshold * sd
    rows, columns = np.nonzero(bad)
    result = image.astype(np.float32, copy=True)
    if len(rows) == 0:
        return result, 0
    offsets = np.mgrid[-3:4, -3:4].reshape(2, -1)
    y = np.clip(rows[:, None] + offsets[0], 0, image.shape[0] - 1)
    x = np.clip(columns[:, None] + offsets[1], 0, image.shape[1] - 1)
    around = np.where(bad[y, x], np.nan, image[y, x]).astype(np.float64)  # [n, 49]
    around[np.isnan(around).all(axis=1)] = mean
    if fill == "median":
        result[rows, columns] = np.nanmedian(around, axis=1)
    else:
        result[rows, columns] = np.nanmean(around, axis=1) + sd * rng.standard_normal(len(rows))
    return result, len(rows)
