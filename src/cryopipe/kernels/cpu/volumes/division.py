"""Quotients of half cubes with the share of their surroundings, row by row."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit

from cryopipe.kernels.cpu.volumes.shells import row_shells


@njit(cache=True, inline="always")
def _sum_rows(weight, plane, row, count, out):
    """Fill ``out`` with weight[plane, row - 1] + 2 weight[plane, row] + weight[plane, row + 1], kx = -1 first."""
    height = weight.shape[1]
    out[:] = 0
    for step in range(-1, 2):
        y = row + step
        if 0 <= y < height:
            factor = np.float32(2 - abs(step))
            out[0] += factor * weight[weight.shape[0] - 1 - plane, height - 1 - y, 1]
            for i in range(count):
                out[1 + i] += factor * weight[plane, y, i]


@njit(cache=True, inline="always")
def _smoothed_value(cube, plane, row, column):
    """Return the [1 2 1]/4 mean of a half cube about one voxel."""
    depth, height, width = cube.shape
    value = np.complex64(0)
    for i in range(-1, 2):
        z = plane + i
        for j in range(-1, 2):
            y = row + j
            if z < 0 or z >= depth or y < 0 or y >= height:
                continue
            line = np.float32(2) * cube[z, y, column]
            if column + 1 < width:
                line += cube[z, y, column + 1]
            line += cube[z, y, column - 1] if column > 0 else np.conj(cube[depth - 1 - z, height - 1 - y, 1])
            value += np.float32((2 - abs(i)) * (2 - abs(j))) * line
    return np.float32(1 / 64) * value


@njit(cache=True, nogil=True)
def divide(numerator, weight, start, floor, regulariser, scale, least, quotient):
    """Fill ``quotient`` in one thread, because it is called from the threads of the transforms.

    Parameters
    ----------
    numerator, weight : complex64, float32 [2R+1, 2R+1, R+1]
        Half cubes.
    start : int
        First row of the half cubes that is divided.
    floor, regulariser : float32 [shells]
        Least divisor, and what is added to it.
    scale : float32
        One over the padding factor.
    least : float32
        Least weight of a voxel as a share of the smoothed weight about it.
    quotient : complex64 [2R+1, rows, R+1]
        Receives the quotients; zero where nothing is written.
    """
    depth, _, width = weight.shape
    edge = width - 1
    shells = floor.size
    shell = np.empty(width, np.int32)
    # sums over three rows for each of three planes, with one more column on either side
    sums, total = np.empty((3, width + 2), np.float32), np.empty(width + 2, np.float32)
    part = np.float32(1 / 64)
    for row in range(quotient.shape[1]):
        y = start + row
        reach = min(row_shells((y - edge) ** 2, shells - 1, scale, shell) + 1, width)
        if reach == 1:
            continue
        sums[2, :] = 0
        _sum_rows(weight, 0, y, reach, sums[0])
        for plane in range(depth):
            before, here, after = (plane + 2) % 3, plane % 3, (plane + 1) % 3
            if plane + 1 < depth:
                _sum_rows(weight, plane + 1, y, reach, sums[after])
            else:
                sums[after, :] = 0
            count = row_shells((plane - edge) ** 2 + (y - edge) ** 2, shells - 1, scale, shell)
            if count == 0:
                continue
            for i in range(count + 2):
                total[i] = sums[before, i] + np.float32(2) * sums[here, i] + sums[after, i]
            for i in range(count):
                if shell[i] >= shells:
                    continue
                about = part * (total[i] + np.float32(2) * total[i + 1] + total[i + 2])
                value, known = numerator[plane, y, i], weight[plane, y, i]
                missing = least * about - known
                if missing > 0:
                    value += missing / about * _smoothed_value(numerator, plane, y, i)
                    known += missing
                divisor = max(known, floor[shell[i]]) + regulariser[shell[i]]
                if divisor > 0:
                    quotient[plane, row, i] = value * (np.float32(1) / divisor)
