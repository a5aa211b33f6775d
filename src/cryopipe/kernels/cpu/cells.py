"""Blocks of samples for fused kernels: the interpolation cells around them and their phase factors."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit

#: samples of a block: its buffers stay in the first-level cache. Sums over a block run in float32 and vectorise,
#: sums of blocks in float64, so that rounding stays near 1e-6 whatever the number of samples
BLOCK = 256
#: for sums: their terms may be reordered, or they could not vectorise
REDUCE = {"contract", "nsz", "arcp", "reassoc"}
#: reassociation is harmless in these short sums; NaN and infinity keep their meaning
FASTMATH = {"contract", "nsz", "arcp"}
ONE = np.float32(1)


@njit(inline="always", fastmath=FASTMATH)
def locate(x, y, z, radius, side):
    """Return (flat index of the lower corner, fractions fx, fy, fz) of the cell around padded coordinates, x >= 0."""
    x0 = np.floor(x)
    y0 = np.floor(y)
    z0 = np.floor(z)
    row = (np.int64(z0) + radius) * side + np.int64(y0) + radius
    corner = np.uint64(row * (radius + 1) + np.int64(x0))
    return corner, x - x0, y - y0, z - z0


@njit(fastmath=FASTMATH)
def load_cells(flat, radius, a, kx, ky, cells):
    """Fill ``cells`` [20, BLOCK]: the 8 corners (re, im) around each sample, fractions x, y, z and sign of its half.

    Loads alone, no arithmetic on them: many cache misses are then in flight at once.
    """
    side = 2 * radius + 1
    stride_y = np.uint64(2 * (radius + 1))
    stride_z = np.uint64(2 * (radius + 1) * side)
    for k in range(kx.size):
        qx = np.float32(kx[k])
        qy = np.float32(ky[k])
        x = a[0, 0] * qx + a[1, 0] * qy
        y = a[0, 1] * qx + a[1, 1] * qy
        z = a[0, 2] * qx + a[1, 2] * qy
        sign = ONE
        if x < 0:
            x, y, z, sign = -x, -y, -z, -ONE
        corner, fx, fy, fz = locate(x, y, z, radius, side)
        at = np.uint64(2) * corner
        for j in range(4):
            cells[j, k] = flat[at + np.uint64(j)]
            cells[4 + j, k] = flat[at + stride_y + np.uint64(j)]
            cells[8 + j, k] = flat[at + stride_z + np.uint64(j)]
            cells[12 + j, k] = flat[at + stride_z + stride_y + np.uint64(j)]
        cells[16, k] = fx
        cells[17, k] = fy
        cells[18, k] = fz
        cells[19, k] = sign


@njit(inline="always", fastmath=REDUCE)
def interpolate(cells, k):
    """Return (real, imaginary) of the trilinear value of sample k of a block, conjugated where its mate was read."""
    fx, fy, fz = cells[16, k], cells[17, k], cells[18, k]
    ar = cells[0, k] + fx * (cells[2, k] - cells[0, k])
    ai = cells[1, k] + fx * (cells[3, k] - cells[1, k])
    br = cells[4, k] + fx * (cells[6, k] - cells[4, k])
    bi = cells[5, k] + fx * (cells[7, k] - cells[5, k])
    cr = cells[8, k] + fx * (cells[10, k] - cells[8, k])
    ci = cells[9, k] + fx * (cells[11, k] - cells[9, k])
    dr = cells[12, k] + fx * (cells[14, k] - cells[12, k])
    di = cells[13, k] + fx * (cells[15, k] - cells[13, k])
    ar += fy * (br - ar)
    ai += fy * (bi - ai)
    cr += fy * (dr - cr)
    ci += fy * (di - ci)
    return ar + fz * (cr - ar), cells[19, k] * (ai + fz * (ci - ai))


@njit(inline="always")
def twiddles(step, k_max, out):
    """Fill ``out`` [2 (2 k_max + 1)] with exp(i step k), k = -k_max .. k_max, as float32 pairs (angles in float64)."""
    for k in range(k_max + 1):
        c = np.float32(np.cos(step * k))
        s = np.float32(np.sin(step * k))
        out[2 * (k_max + k)] = c
        out[2 * (k_max + k) + 1] = s
        out[2 * (k_max - k)] = c
        out[2 * (k_max - k) + 1] = -s
