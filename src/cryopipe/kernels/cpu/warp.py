"""Cubic B-spline coefficients, and warping with accumulation, on the CPU: parts of rows or columns, without the GIL."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit

#: Pole of the cubic B-spline's inverse filter; its 16th power is below the rounding of float32.
POLE = np.float32(np.sqrt(3.0) - 2.0)
START = 16


@njit(cache=True, nogil=True, fastmath={"contract"})
def filter_rows(image, first, last):
    """Turn rows first..last of ``image`` [y, x] float32 into spline coefficients along x, in place."""
    n = image.shape[1]
    edge = POLE / (POLE * POLE - np.float32(1.0))
    for y in range(first, last):
        row = image[y]
        total, power = row[0], POLE
        for k in range(1, START):
            m = k % (2 * n - 2)
            total += power * row[min(m, 2 * n - 2 - m)]
            power *= POLE
        previous = np.float32(6.0) * total
        row[0] = previous
        for x in range(1, n):
            previous = np.float32(6.0) * row[x] + POLE * previous
            row[x] = previous
        previous = edge * (POLE * row[n - 2] + row[n - 1])
        row[n - 1] = previous
        for x in range(n - 2, -1, -1):
            previous = POLE * (previous - row[x])
            row[x] = previous


@njit(cache=True, nogil=True, fastmath={"contract"})
def filter_columns(image, first, last):
    """Turn columns first..last of ``image`` [y, x] float32 into spline coefficients along y, in place."""
    n = image.shape[0]
    edge = POLE / (POLE * POLE - np.float32(1.0))
    start = np.zeros(last - first, dtype=np.float32)
    power = np.float32(1.0)
    for k in range(START):
        m = k % (2 * n - 2)
        row = image[min(m, 2 * n - 2 - m)]
        for x in range(first, last):
            start[x - first] += power * row[x]
        power *= POLE
    for x in range(first, last):
        image[0, x] = np.float32(6.0) * start[x - first]
    for y in range(1, n):
        for x in range(first, last):
            image[y, x] = np.float32(6.0) * image[y, x] + POLE * image[y - 1, x]
    for x in range(first, last):
        image[n - 1, x] = edge * (POLE * image[n - 2, x] + image[n - 1, x])
    for y in range(n - 2, -1, -1):
        for x in range(first, last):
            image[y, x] = POLE * (image[y + 1, x] - image[y, x])


@njit(inline="always")
def _taps(f):
    """Return the four weights of the cubic B-spline at the fraction ``f``."""
    g = np.float32(1.0) - f
    sixth = np.float32(1.0 / 6.0)
    w0 = g * g * g * sixth
    w3 = f * f * f * sixth
    w1 = np.float32(2.0 / 3.0) - f * f * (np.float32(1.0) - np.float32(0.5) * f)
    return w0, w1, np.float32(1.0) - w0 - w1 - w3, w3


@njit(inline="always")
def _mirror(i, n):
    """Return index ``i`` reflected about the first and last sample."""
    i = -i if i < 0 else i
    return 2 * n - 2 - i if i >= n else i


@njit(inline="always")
def _pixel(c, x, y, dx, dy, fill):
    """Return one warped pixel; anywhere."""
    ny, nx = c.shape
    u, v = np.float32(x) - dx, np.float32(y) - dy
    if not (u >= 0 and v >= 0 and u <= nx - 1 and v <= ny - 1):
        return fill
    p, q = int(u), int(v)
    a0, a1, a2, a3 = _taps(u - np.float32(p))
    b0, b1, b2, b3 = _taps(v - np.float32(q))
    r0, r1, r2, r3 = _mirror(q - 1, ny), q, _mirror(q + 1, ny), _mirror(q + 2, ny)
    c0, c1, c2, c3 = _mirror(p - 1, nx), p, _mirror(p + 1, nx), _mirror(p + 2, nx)
    return (
        b0 * (a0 * c[r0, c0] + a1 * c[r0, c1] + a2 * c[r0, c2] + a3 * c[r0, c3])
        + b1 * (a0 * c[r1, c0] + a1 * c[r1, c1] + a2 * c[r1, c2] + a3 * c[r1, c3])
        + b2 * (a0 * c[r2, c0] + a1 * c[r2, c1] + a2 * c[r2, c2] + a3 * c[r2, c3])
        + b3 * (a0 * c[r3, c0] + a1 * c[r3, c1] + a2 * c[r3, c2] + a3 * c[r3, c3])
    )


@njit(inline="always")
def _run(r0, r1, r2, r3, dx, dy, whole_x, whole_y, line):
    """Fill ``line`` with warped pixels whose whole-pixel shift is the same: loads are contiguous, lanes are pixels."""
    for i in range(line.size):
        a0, a1, a2, a3 = _taps(-dx[i] - whole_x)
        b0, b1, b2, b3 = _taps(-dy[i] - whole_y)
        line[i] = (
            b0 * (a0 * r0[i] + a1 * r0[i + 1] + a2 * r0[i + 2] + a3 * r0[i + 3])
            + b1 * (a0 * r1[i] + a1 * r1[i + 1] + a2 * r1[i + 2] + a3 * r1[i + 3])
            + b2 * (a0 * r2[i] + a1 * r2[i + 1] + a2 * r2[i + 2] + a3 * r2[i + 3])
            + b3 * (a0 * r3[i] + a1 * r3[i + 1] + a2 * r3[i + 2] + a3 * r3[i + 3])
        )


@njit(inline="always")
def _warp_line(c, y, dx, dy, spacing, fill, line):
    """Fill ``line`` with row ``y`` warped by (dx, dy): stretches between nodes of one whole-pixel shift, joined, fast.

    A shift is linear between nodes, so that its whole part is that of both ends or changes in between: then, and at
    the borders, pixel by pixel.
    """
    ny, nx = c.shape
    first, column, row, running = 0, 0, 0, False
    for start in range(0, nx + spacing, spacing):
        end = min(start + spacing, nx)
        new_column, new_row, plain = 0, 0, False
        if start < nx:
            new_column, new_row = int(np.floor(-dx[start])), int(np.floor(-dy[start]))
            plain = (
                new_column == int(np.floor(-dx[end - 1]))
                and new_row == int(np.floor(-dy[end - 1]))
                and start + new_column >= 1
                and end + new_column + 1 < nx
                and y + new_row >= 1
                and y + new_row + 2 < ny
            )
        else:
            start = nx
        if running and not (plain and new_column == column and new_row == row):
            q, low, high = y + row, first + column - 1, start + column + 2
            _run(
                c[q - 1, low:high], c[q, low:high], c[q + 1, low:high], c[q + 2, low:high],
                dx[first:start], dy[first:start], np.float32(column), np.float32(row), line[first:start],
            )  # fmt: skip
            running = False
        if plain and not running:
            first, column, row, running = start, new_column, new_row, True
        if not plain:
            for x in range(start, end):
                line[x] = _pixel(c, x, y, dx[x], dy[x], fill)


@njit(cache=True, nogil=True, fastmath={"contract"})
def accumulate(coefficients, shifts, spacing, weights, fill, sums, first, last):
    """Add rows first..last of the warped frame, times each weight, to ``sums`` [r, y, x].

    Parameters
    ----------
    coefficients : float32 [y, x]
        Cubic B-spline coefficients of the frame.
    shifts : float32 [2, gy, gx]
        (x, y) at nodes ``spacing`` pixels apart.
    spacing : int
        Pixels between nodes.
    weights : float32 [r]
        Factor of the frame in each sum.
    fill : float
        Value of pixels that come from outside the frame.
    sums : float32 [r, y, x]
        Receive the weighted frame.
    first, last : int
        Rows that this call works on.
    """
    nx = coefficients.shape[1]
    nodes = shifts.shape[2]
    line = np.empty(nx, dtype=np.float32)
    dx, dy = np.empty(nx, dtype=np.float32), np.empty(nx, dtype=np.float32)
    row_x, row_y = np.empty(nodes, dtype=np.float32), np.empty(nodes, dtype=np.float32)
    inverse = np.float32(1.0 / spacing)
    for y in range(first, last):
        j = y // spacing
        f = np.float32(y - j * spacing) * inverse
        for i in range(nodes):
            row_x[i] = shifts[0, j, i] + f * (shifts[0, j + 1, i] - shifts[0, j, i])
            row_y[i] = shifts[1, j, i] + f * (shifts[1, j + 1, i] - shifts[1, j, i])
        for start in range(0, nx, spacing):
            i = start // spacing
            slope_x, slope_y = row_x[i + 1] - row_x[i], row_y[i + 1] - row_y[i]
            for x in range(start, min(start + spacing, nx)):
                g = np.float32(x - start) * inverse
                dx[x] = row_x[i] + g * slope_x
                dy[x] = row_y[i] + g * slope_y
        _warp_line(coefficients, y, dx, dy, spacing, fill, line)
        for r in range(weights.size):
            w = weights[r]
            target = sums[r, y]
            for x in range(nx):
                target[x] += w * line[x]
