"""Trilinear central slices of a centred half cube and their adjoint, on the CPU."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from cryopipe.kernels.cpu.cells import FASTMATH, ONE
from cryopipe.kernels.cpu.pose_parts.cells import next_cells
from cryopipe.kernels.cpu.pose_parts.columns import interpolate
from cryopipe.kernels.cpu.pose_parts.workspace import BLOCK, WORKSPACE, Y
from cryopipe.kernels.cpu.threads import in_parts
from cryopipe.kernels.cpu.vectors import add_scaled, prefetch_to_write

#: samples whose voxels are asked for before the first of them is added to: their lines fill half a first-level cache
QUEUE = 32


def extract_slices(*arguments: Any) -> None:
    """Fill ``out`` (float32 pairs, [n, 2 K]); the arguments are those of ``_extract_slices``."""
    in_parts(_extract_slices, len(arguments[-1]), *arguments)


@njit(fastmath=FASTMATH, cache=True, nogil=True)
def _extract_slices(first, last, flat, radius, rotations, kx, ky, padding, out):
    """Work through the slices first to last."""
    row, column = np.empty((2, BLOCK), np.int32), np.empty((2, BLOCK), np.int32)
    fraction, w = np.empty((2, 4 * BLOCK), np.float32), np.empty(WORKSPACE, np.float32)
    for n in range(first, last):
        a = rotations[n] * padding
        ahead = 0
        for begin in range(0, kx.size, BLOCK):
            count = next_cells(flat, radius, a, kx, ky, begin, ahead, row, column, fraction, w)
            ahead = 1 - ahead
            interpolate(count, w)
            for k in range(count):
                out[n, 2 * (begin + k)] = w[Y + k]
                out[n, 2 * (begin + k) + 1] = w[Y + BLOCK + k]


@njit(inline="always")
def _add_queued(numerator, weight, side, stride, lower, upper, count, corner, sample):
    """Add ``count`` queued samples, in their order, to those of their 8 voxels whose |z| lies in [lower, upper)."""
    for q in range(count):
        at, iz, mate = corner[q, 0], corner[q, 1], corner[q, 2]
        fx, fy, fz = sample[q, 0], sample[q, 1], sample[q, 2]
        real, imag, w = sample[q, 3], sample[q, 4], sample[q, 5]
        gx = ONE - fx
        pair = (gx * real, gx * imag, fx * real, fx * imag)
        pair_weight = (gx * w, fx * w)
        for dz in range(2):
            if lower <= abs(iz + dz) < upper:
                wz = fz if dz == 1 else ONE - fz
                near, far = wz * (ONE - fy), wz * fy
                low = np.uint64(at + dz * side * stride)
                high = low + np.uint64(stride)
                add_scaled(numerator, np.uint64(2) * low, near, pair)
                add_scaled(numerator, np.uint64(2) * high, far, pair)
                add_scaled(weight, low, near, pair_weight)
                add_scaled(weight, high, far, pair_weight)
                if mate >= 0:  # of a voxel of the plane x = 0 the mate is stored too
                    low = np.uint64(mate - dz * side * stride)
                    high = low - np.uint64(stride)
                    add_scaled(numerator, np.uint64(2) * low, near, (gx * real, -gx * imag))
                    add_scaled(numerator, np.uint64(2) * high, far, (gx * real, -gx * imag))
                    weight[low] += near * gx * w
                    weight[high] += far * gx * w


@njit(inline="always")
def _ask_for(numerator, weight, at, side, stride):
    """Prefetch the four pairs of voxels from ``at`` on; a pair may lie on two cache lines."""
    for j in range(4):
        pair = np.uint64(at + (j & 1) * stride + (j >> 1) * side * stride)
        prefetch_to_write(numerator, np.uint64(2) * pair)
        prefetch_to_write(numerator, np.uint64(2) * pair + np.uint64(3))
        prefetch_to_write(weight, pair)
        prefetch_to_write(weight, pair + np.uint64(1))


@njit(inline="always")
def _interval(c, slope, inverse, low, high, k_max):
    """Return the integers kx in [0, k_max] with low <= c + slope kx <= high, widened by one for rounding."""
    if abs(slope) < 1e-6:
        if low - 1e-3 <= c + slope * k_max / 2 <= high + 1e-3:
            return 0, k_max
        return 0, -1
    a = (low - c) * inverse
    b = (high - c) * inverse
    first = math.floor(max(min(a, b), 0.0))
    last = math.ceil(min(max(a, b), np.float64(k_max)))
    return first, last


@njit(inline="always")
def _row_ends(position):
    """Return the last column that holds a sample in each row, or -1."""
    ends = np.full(position.shape[0], -1, np.int64)
    for row in range(position.shape[0]):
        for column in range(position.shape[1]):
            if position[row, column] >= 0:
                ends[row] = column
    return ends


def insert_slices(*arguments: Any) -> None:
    """Scatter all samples, a slab a task; the arguments are those of ``_insert_slices``."""
    in_parts(_insert_slices, len(arguments[-1]) - 1, *arguments)


@njit(fastmath=FASTMATH, cache=True, nogil=True)
def _insert_slices(
    first_slab, last_slab, numerator, weight, radius, rotations, values, weights, position, padding, slabs
):  # fmt: skip
    """Scatter the samples of some slabs; slab s owns the voxels with slabs[s] <= |z| < slabs[s + 1] and writes no other.

    Every slab meets the samples in the order (image, pose, ky, kx), so each voxel's sum has one order, whatever the
    threads. ``rotations`` [n, m, 3, 3] are the m poses of each image; ``position`` [2 k_max + 1, k_max + 1] gives the
    index of the sample (ky, kx), or -1.
    """
    side = 2 * radius + 1
    stride = radius + 1
    k_max = position.shape[1] - 1
    ends = _row_ends(position)
    for s in range(first_slab, last_slab):
        lower = slabs[s]
        upper = slabs[s + 1]
        corner = np.empty((QUEUE, 3), np.int64)
        sample = np.empty((QUEUE, 6), np.float32)
        count = 0
        for pose in range(rotations.shape[0] * rotations.shape[1]):
            n = pose // rotations.shape[1]
            a = rotations[n, pose % rotations.shape[1]] * padding
            slope = np.float64(a[0, 2])
            inverse = 1.0 / slope if abs(slope) >= 1e-6 else 0.0
            for row in range(2 * k_max + 1):
                if ends[row] < 0:
                    continue
                ky = np.float32(row - k_max)
                # floor(|z|) and floor(|z|) + 1 are the two layers of a sample
                c = a[1, 2] * ky
                first, last = _interval(c, slope, inverse, lower - 1.0, np.float64(upper), ends[row])
                first2, last2 = 0, -1
                if lower > 0:
                    first2, last2 = _interval(c, slope, inverse, -np.float64(upper), 1.0 - lower, ends[row])
                else:
                    first, last = _interval(c, slope, inverse, -np.float64(upper), np.float64(upper), ends[row])
                # the two intervals in ascending order, without visiting a sample twice
                if first2 <= last2 and (first > last or first2 < first):
                    first, last, first2, last2 = first2, last2, first, last
                first2 = max(first2, last + 1)
                for part in range(2):
                    begin = first if part == 0 else first2
                    end = last if part == 0 else last2
                    for column in range(begin, end + 1):
                        k = position[row, column]
                        if k < 0:
                            continue
                        w = weights[n, k]
                        if w == 0:
                            continue
                        kx = np.float32(column)
                        x = a[0, 0] * kx + a[1, 0] * ky
                        y = a[0, 1] * kx + a[1, 1] * ky
                        z = a[0, 2] * kx + c
                        imag = values[n, 2 * k + 1]
                        if x < 0:
                            x, y, z, imag = -x, -y, -z, -imag
                        x0, y0, z0 = np.floor(x), np.floor(y), np.floor(z)
                        ix, iy, iz = np.int64(x0), np.int64(y0), np.int64(z0)
                        at = ((iz + radius) * side + iy + radius) * stride + ix
                        corner[count, 0] = at
                        corner[count, 1] = iz
                        corner[count, 2] = ((radius - iz) * side + radius - iy) * stride if ix == 0 else -1
                        sample[count, 0], sample[count, 1], sample[count, 2] = x - x0, y - y0, z - z0
                        sample[count, 3], sample[count, 4], sample[count, 5] = values[n, 2 * k], imag, w
                        _ask_for(numerator, weight, at, side, stride)
                        count += 1
                        if count == QUEUE:
                            _add_queued(numerator, weight, side, stride, lower, upper, count, corner, sample)
                            count = 0
        _add_queued(numerator, weight, side, stride, lower, upper, count, corner, sample)
