"""Sums over blocks of pixels, and values between the centres of blocks."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def block_sums(image, good, step):
    """Return the sums of good values and the numbers of good pixels of blocks of ``step`` pixels."""
    ny, nx = image.shape
    values = np.zeros(((ny + step - 1) // step, (nx + step - 1) // step), dtype=np.float32)
    weights = np.zeros_like(values)
    for y in range(ny):
        for block in range(values.shape[1]):
            for x in range(block * step, min((block + 1) * step, nx)):
                if good[y, x]:
                    values[y // step, block] += image[y, x]
                    weights[y // step, block] += 1
    return values, weights


@njit(cache=True, nogil=True)
def interpolate(coarse, ny, nx, step):
    """Return values [ny, nx] interpolated between the centres of blocks of ``step`` pixels, constant beyond the outermost.

    Parameters
    ----------
    coarse : float32 [blocks, blocks]
        Values at the centres (y, x).
    ny, nx : int
        Shape of the result.
    step : int
        Side of a block, pixels.
    """
    result = np.empty((ny, nx), dtype=np.float32)
    row = np.empty(coarse.shape[1], dtype=np.float32)
    left, parts = np.empty(nx, dtype=np.int64), np.empty(nx, dtype=np.float32)
    for x in range(nx):
        u = min(max((x + 0.5) / step - 0.5, 0.0), coarse.shape[1] - 1.0)
        left[x] = min(int(u), max(coarse.shape[1] - 2, 0))
        parts[x] = u - left[x]
    last = coarse.shape[1] - 1
    for y in range(ny):
        v = min(max((y + 0.5) / step - 0.5, 0.0), coarse.shape[0] - 1.0)
        below = min(int(v), max(coarse.shape[0] - 2, 0))
        part = np.float32(v - below)
        above = min(below + 1, coarse.shape[0] - 1)
        for x in range(coarse.shape[1]):
            row[x] = coarse[below, x] + part * (coarse[above, x] - coarse[below, x])
        for x in range(nx):
            result[y, x] = row[left[x]] + parts[x] * (row[min(left[x] + 1, last)] - row[left[x]])
    return result
