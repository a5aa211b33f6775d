"""Warping by SciPy's cubic splines, in float64."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def spline_coefficients(image):
    return ndimage.spline_filter(image.astype(np.float64), order=3, mode="mirror")


def warp(image, field, fill):
    """Return image(x - field(x)) for a field [2, y, x] of every pixel; ``fill`` outside the image."""
    y, x = np.indices(image.shape)
    u, v = x - field[0], y - field[1]
    inside = (u >= 0) & (v >= 0) & (u <= image.shape[1] - 1) & (v <= image.shape[0] - 1)
    values = ndimage.map_coordinates(image.astype(np.float64), [v, u], order=3, mode="mirror")
    return np.where(inside, values, fill)


def dense(nodes, spacing, shape):
    """Return the field of every pixel [2, y, x], linear between nodes."""
    grid = [np.arange(length) / spacing for length in shape]
    at = np.meshgrid(*grid, indexing="ij")
    return np.stack([ndimage.map_coordinates(axis.astype(np.float64), at, order=1) for axis in nodes])
