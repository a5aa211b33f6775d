"""Sums over rings, on the CPU."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit, prange

#: pixels a task adds up; the partial sums of tasks are then added in order, so threads cannot change a bit
CHUNK = 8192


@njit(parallel=True, cache=True, nogil=True)
def ring_sums(values, ring, n_rings, out):
    """Fill ``out`` [n, n_rings] (float64); ring < 0 or >= n_rings is skipped.

    Parameters
    ----------
    values : float32 [n, K]
        Values to sum.
    ring : integer [K]
        Ring of each place.
    n_rings : int
        Number of rings.
    out : float64 [n, n_rings]
        Receives the sums.
    """
    chunks = (ring.size + CHUNK - 1) // CHUNK
    partial = np.zeros((values.shape[0] * chunks, n_rings))
    for task in prange(values.shape[0] * chunks):
        image = np.int64(task) // chunks
        begin = (np.int64(task) % chunks) * CHUNK
        for k in range(begin, min(begin + CHUNK, ring.size)):
            if 0 <= ring[k] < n_rings:
                partial[task, ring[k]] += values[image, k]
    for task in range(values.shape[0] * chunks):
        for r in range(n_rings):
            out[task // chunks, r] += partial[task, r]


@njit(parallel=True, cache=True, nogil=True)
def spread_sums(values, position, n_rings, sums, weights):
    """Fill ``sums`` and ``weights`` [n, n_rings] (float64), splitting a value linearly between its two rings.

    Parameters
    ----------
    values : float32 [n, K]
        Values to sum.
    position : float [1, K] or [n, K]
        Place between the rings; a row for all, or one for each.
    n_rings : int
        Number of rings.
    sums, weights : float64 [n, n_rings]
        Receive the sums of the values and of their shares.
    """
    chunks = (position.shape[1] + CHUNK - 1) // CHUNK
    partial = np.zeros((values.shape[0] * chunks, 2, n_rings))
    for task in prange(values.shape[0] * chunks):
        image = np.int64(task) // chunks
        row = min(image, position.shape[0] - 1)
        begin = (np.int64(task) % chunks) * CHUNK
        for k in range(begin, min(begin + CHUNK, position.shape[1])):
            at = position[row, k]
            if 0 <= at < n_rings:
                lower = int(at)
                share = np.float64(at) - lower
                partial[task, 0, lower] += (1 - share) * values[image, k]
                partial[task, 1, lower] += 1 - share
                if lower + 1 < n_rings:
                    partial[task, 0, lower + 1] += share * values[image, k]
                    partial[task, 1, lower + 1] += share
    for task in range(values.shape[0] * chunks):
        for r in range(n_rings):
            sums[task // chunks, r] += partial[task, 0, r]
            weights[task // chunks, r] += partial[task, 1, r]
