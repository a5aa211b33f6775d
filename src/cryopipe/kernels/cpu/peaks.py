"""Local maxima of a map and greedy non-maximum suppression, on the CPU."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit, prange


@njit(parallel=True, cache=True, nogil=True)
def local_maxima(response, threshold, border, out):
    """Mark in ``out`` pixels above the threshold that no neighbour beats; of equals the first in raster order wins.

    Parameters
    ----------
    response : float32 [y, x]
        Image.
    threshold : float
        A peak is larger than this.
    border : int
        Pixels at each side in which no peak is marked.
    out : bool [y, x]
        Receives the marks.
    """
    height, width = response.shape
    for y in prange(border, height - border):
        for x in range(border, width - border):
            value = response[y, x]
            if not value > threshold:
                continue
            highest = True
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    v, u = np.int64(y) + dy, x + dx
                    if (dy == 0 and dx == 0) or v < 0 or u < 0 or v >= height or u >= width:
                        continue
                    earlier = dy < 0 or (dy == 0 and dx < 0)
                    if response[v, u] > value or (earlier and response[v, u] == value):
                        highest = False
            out[y, x] = highest


@njit(cache=True, nogil=True)
def suppress(y, x, radius):
    """Return which of the peaks, best first, survive: those that no earlier survivor has within its own radius."""
    keep = np.zeros(y.size, np.bool_)
    if y.size == 0:
        return keep
    cell = max(1.0, float(radius.max()))
    rows = int(y.max() / cell) + 1
    columns = int(x.max() / cell) + 1
    head = np.full((rows, columns), -1, np.int64)
    following = np.full(y.size, -1, np.int64)
    for i in range(y.size):
        row, column = int(y[i] / cell), int(x[i] / cell)
        free = True
        for r in range(max(0, row - 1), min(rows, row + 2)):
            for c in range(max(0, column - 1), min(columns, column + 2)):
                j = head[r, c]
                while j >= 0 and free:
                    dy, dx = float(y[i] - y[j]), float(x[i] - x[j])
                    free = dy * dy + dx * dx >= float(radius[j]) ** 2
                    j = following[j]
        if free:
            keep[i] = True
            following[i] = head[row, column]
            head[row, column] = i
    return keep
