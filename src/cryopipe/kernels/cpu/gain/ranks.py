"""Ranks of integers in their columns and rows, by counting."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def cumulative_counts(frame, low, levels):
    """Return for each column and each row of integers how many values are at most ``low`` + 0, 1, 2 ..."""
    columns = np.zeros((frame.shape[1], levels), dtype=np.int32)
    rows = np.zeros((frame.shape[0], levels), dtype=np.int32)
    for y in range(frame.shape[0]):
        for x in range(frame.shape[1]):
            level = int(frame[y, x]) - low
            columns[x, level] += 1
            rows[y, level] += 1
    for counts in (columns, rows):
        for line in range(counts.shape[0]):
            for level in range(1, levels):
                counts[line, level] += counts[line, level - 1]
    return columns, rows


@njit(cache=True, nogil=True)
def add_quantiles(frame, low, columns, by_column, rows, by_row, total):
    """Add to ``total`` the quantiles of each pixel's ranks (the highest among ties) in its column and its row.

    Parameters
    ----------
    frame, low, columns, by_column, rows, by_row, total
        As in `cryopipe.kernels.gain.ranks.add_quantiles`.
    """
    for y in range(frame.shape[0]):
        for x in range(frame.shape[1]):
            level = int(frame[y, x]) - low
            total[y, x] += 2 * low + by_column[columns[x, level] - 1] + by_row[rows[y, level] - 1]
