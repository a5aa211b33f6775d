"""Trilinear central slices of a centred half cube and their adjoint, on the CPU."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from cryopipe.kernels.cpu.cells import BLOCK, FASTMATH, ONE, REDUCE, interpolate, load_cells


@njit(fastmath=REDUCE)
def _interpolate(cells, out):
    for k in range(out.size // 2):
        out[2 * k], out[2 * k + 1] = interpolate(cells, k)


@njit(parallel=True, fastmath=FASTMATH, cache=True, nogil=True)
def extract_slices(flat, radius, rotations, kx, ky, padding, out):
    """Fill ``out`` (float32 pairs, [n, 2 K]); one image a task, so the order of threads cannot matter."""
    for n in prange(rotations.shape[0]):
        a = rotations[n] * padding
        cells = np.empty((20, BLOCK), np.float32)
        for begin in range(0, kx.size, BLOCK):
            end = min(begin + BLOCK, kx.size)
            load_cells(flat, radius, a, kx[begin:end], ky[begin:end], cells)
            _interpolate(cells, out[n, 2 * begin : 2 * end])


@njit(inline="always", fastmath=FASTMATH)
def _add(numerator, weight, at, real, imag, share):
    numerator[np.uint64(2) * at] += real
    numerator[np.uint64(2) * at + np.uint64(1)] += imag
    weight[at] += share


@njit(inline="always", fastmath=FASTMATH)
def _add_sample(numerator, weight, radius, side, lower, upper, x, y, z, real, imag, w):
    """Scatter one sample into those of its 8 voxels whose |z| lies in [lower, upper); mates of the plane x = 0 too."""
    x0 = np.floor(x)
    y0 = np.floor(y)
    z0 = np.floor(z)
    fx = x - x0
    ix = np.int64(x0)
    width = radius + 1
    for dz in range(2):
        iz = np.int64(z0) + dz
        if lower <= abs(iz) < upper:
            wz = z - z0 if dz == 1 else ONE - (z - z0)
            for dy in range(2):
                iy = np.int64(y0) + dy
                wyz = wz * (y - y0 if dy == 1 else ONE - (y - y0))
                at = np.uint64(((iz + radius) * side + iy + radius) * width + ix)
                share = wyz * (ONE - fx)
                _add(numerator, weight, at, share * real, share * imag, share * w)
                if ix == 0:
                    mate = np.uint64(((radius - iz) * side + radius - iy) * width)
                    _add(numerator, weight, mate, share * real, -share * imag, share * w)
                share = wyz * fx
                _add(numerator, weight, at + np.uint64(1), share * real, share * imag, share * w)


@njit(inline="always")
def _interval(c, slope, low, high, k_max):
    """Return the integers kx in [0, k_max] with low <= c + slope kx <= high, widened by one for rounding."""
    if abs(slope) < 1e-6:
        if low - 1e-3 <= c + slope * k_max / 2 <= high + 1e-3:
            return 0, k_max
        return 0, -1
    a = (low - c) / slope
    b = (high - c) / slope
    if a > b:
        a, b = b, a
    first = max(0, math.floor(max(a, -2.0)))
    last = min(k_max, math.ceil(min(b, k_max + 2.0)))
    return first, last


@njit(parallel=True, fastmath=FASTMATH, cache=True, nogil=True)
def insert_slices(numerator, weight, radius, rotations, values, weights, position, padding, slabs):
    """Scatter all samples; the task of slab s owns the voxels with slabs[s] <= |z| < slabs[s + 1] and writes no other.

    Every slab meets the samples in the order (image, ky, kx), so each voxel's sum has one order, whatever the threads.
    ``position`` [2 k_max + 1, k_max + 1] gives the index of the sample (ky, kx), or -1.
    """
    side = 2 * radius + 1
    k_max = position.shape[1] - 1
    for s in prange(slabs.size - 1):
        lower = slabs[s]
        upper = slabs[s + 1]
        for n in range(rotations.shape[0]):
            a = rotations[n] * padding
            for row in range(2 * k_max + 1):
                ky = np.float32(row - k_max)
                # floor(|z|) and floor(|z|) + 1 are the two layers of a sample
                c = a[1, 2] * ky
                first, last = _interval(c, a[0, 2], lower - 1.0, np.float64(upper), k_max)
                first2, last2 = _interval(c, a[0, 2], -np.float64(upper), 1.0 - lower, k_max)
                # the two intervals in ascending order, without visiting a sample twice
                if first2 <= last2 and (first > last or first2 < first):
                    first, last, first2, last2 = first2, last2, first, last
                first2 = max(first2, last + 1)
                for part in range(2):
                    begin = first if part == 0 else first2
                    end = last if part == 0 else last2
                    for column in range(begin, end + 1):
                        k = position[row, column]
                        if k < 0 or weights[n, k] == 0:
                            continue
                        kx = np.float32(column)
                        x = a[0, 0] * kx + a[1, 0] * ky
                        y = a[0, 1] * kx + a[1, 1] * ky
                        z = a[0, 2] * kx + c
                        real = values[n, 2 * k]
                        imag = values[n, 2 * k + 1]
                        if x < 0:
                            x, y, z, imag = -x, -y, -z, -imag
                        _add_sample(numerator, weight, radius, side, lower, upper, x, y, z, real, imag, weights[n, k])
