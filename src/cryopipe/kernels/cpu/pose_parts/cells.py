"""The cells of the cube around the samples of a block: located, asked for a block ahead, and loaded."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit

from cryopipe.kernels.cpu.pose_parts.workspace import BLOCK, FRACTION, ONE
from cryopipe.kernels.cpu.vectors import prefetch, transpose_four


@njit(inline="always")
def place(kx, ky, a, radius, row, column, fraction):
    """Locate the cells around the samples a^T (kx, ky, 0): row of x-lines, column along x, fractions and half.

    Parameters
    ----------
    a, row, column
        See :mod:`cryopipe.kernels.cpu.pose_parts.workspace`.
    kx, ky : integer [k]
        Frequencies of at most BLOCK samples, Fourier pixels.
    radius : int
        Radius of the cube in grid steps.
    fraction : float32 [4 BLOCK]
        Receives the fractions along x, y, z, and the sign of the half that is read.
    """
    side = np.int32(2 * radius + 1)
    origin = np.int32(radius)
    a00, a01, a02 = a[0, 0], a[0, 1], a[0, 2]
    a10, a11, a12 = a[1, 0], a[1, 1], a[1, 2]
    for k in range(kx.size):
        qx, qy = np.float32(kx[k]), np.float32(ky[k])
        x = a00 * qx + a10 * qy
        y = a01 * qx + a11 * qy
        z = a02 * qx + a12 * qy
        sign = ONE if x >= 0 else -ONE  # the mate at -q is read where kx < 0
        x *= sign
        y *= sign
        z *= sign
        x0, y0, z0 = np.floor(x), np.floor(y), np.floor(z)
        row[k] = (np.int32(z0) + origin) * side + np.int32(y0) + origin
        column[k] = np.int32(x0)
        fraction[k] = x - x0
        fraction[BLOCK + k] = y - y0
        fraction[2 * BLOCK + k] = z - z0
        fraction[3 * BLOCK + k] = sign


@njit(inline="always")
def order_lines(flat, radius, row, column, count):
    """Prefetch the four x-lines of every cell, both ends of them: one in eight lies on two cache lines.

    Parameters
    ----------
    flat, radius, row, column
        See :mod:`cryopipe.kernels.cpu.pose_parts.workspace`.
    count : int
        Number of cells.
    """
    width = 2 * np.int64(radius + 1)
    plane = width * np.int64(2 * radius + 1)
    for k in range(count):
        at = np.int64(row[k]) * width + 2 * np.int64(column[k])
        prefetch(flat, at)
        prefetch(flat, at + 3)
        prefetch(flat, at + width)
        prefetch(flat, at + width + 3)
        prefetch(flat, at + plane)
        prefetch(flat, at + plane + 3)
        prefetch(flat, at + plane + width)
        prefetch(flat, at + plane + width + 3)


@njit(inline="always")
def load_cells(flat, radius, row, column, count, w):
    """Write the 8 corners of every cell to the workspace's columns 0 to 15: (z, y, x, re/im) as digits.

    Parameters
    ----------
    flat, radius, row, column, w
        See :mod:`cryopipe.kernels.cpu.pose_parts.workspace`.
    count : int
        Number of cells.
    """
    width = 2 * np.int64(radius + 1)
    plane = width * np.int64(2 * radius + 1)
    for k in range(count, (count + 3) // 4 * 4):  # whole groups of four: the last one's gaps repeat a sample
        row[k] = row[count - 1]
        column[k] = column[count - 1]
    for k in range(0, count, 4):
        a = np.int64(row[k]) * width + 2 * np.int64(column[k])
        b = np.int64(row[k + 1]) * width + 2 * np.int64(column[k + 1])
        c = np.int64(row[k + 2]) * width + 2 * np.int64(column[k + 2])
        d = np.int64(row[k + 3]) * width + 2 * np.int64(column[k + 3])
        transpose_four(w, k, BLOCK, flat, a, b, c, d)
        transpose_four(w, 4 * BLOCK + k, BLOCK, flat, a + width, b + width, c + width, d + width)
        transpose_four(w, 8 * BLOCK + k, BLOCK, flat, a + plane, b + plane, c + plane, d + plane)
        a, b, c, d = a + plane + width, b + plane + width, c + plane + width, d + plane + width
        transpose_four(w, 12 * BLOCK + k, BLOCK, flat, a, b, c, d)


@njit(inline="always")
def next_cells(flat, radius, a, kx, ky, begin, ahead, row, column, fraction, w):
    """Bring the cells of the block from ``begin`` to the workspace, and order those of the block after it.

    ``ahead`` says which of the two buffers holds the block's cells; they were located one call earlier.

    Parameters
    ----------
    flat, radius, a, w
        See :mod:`cryopipe.kernels.cpu.pose_parts.workspace`.
    kx, ky : integer [K]
        Frequencies of all samples, Fourier pixels.
    begin : int
        First sample of the block.
    ahead : {0, 1}
        Which of the two buffers holds the cells of the block.
    row, column, fraction : array [2, ...]
        Two buffers of what :func:`place` writes.
    """
    end = min(begin + BLOCK, kx.size)
    if begin == 0:
        place(kx[:end], ky[:end], a, radius, row[ahead], column[ahead], fraction[ahead])
    if end < kx.size:
        after = min(end + BLOCK, kx.size)
        place(kx[end:after], ky[end:after], a, radius, row[1 - ahead], column[1 - ahead], fraction[1 - ahead])
        order_lines(flat, radius, row[1 - ahead], column[1 - ahead], after - end)
    load_cells(flat, radius, row[ahead], column[ahead], end - begin, w)
    for k in range(4 * BLOCK):
        w[FRACTION + k] = fraction[ahead, k]
    return end - begin
