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


@njit(cache=True, nogil=True, fastmath={"contract"})
def accumulate(coefficients, shifts, spacing, weights, fill, sums, first, last):
    """Add rows first..last of the warped frame, times each weight, to ``sums`` [r, y, x]."""
    ny, nx = coefficients.shape
    nodes = shifts.shape[2]
    line = np.empty(nx, dtype=np.float32)
    row_x, row_y = np.empty(nodes, dtype=np.float32), np.empty(nodes, dtype=np.float32)
    inverse = np.float32(1.0 / spacing)
    for y in range(first, last):
        j = y // spacing
        f = np.float32(y - j * spacing) * inverse
        for i in range(nodes):
            row_x[i] = shifts[0, j, i] + f * (shifts[0, j + 1, i] - shifts[0, j, i])
            row_y[i] = shifts[1, j, i] + f * (shifts[1, j + 1, i] - shifts[1, j, i])
        for x in range(nx):
            i = x // spacing
            f = np.float32(x - i * spacing) * inverse
            u = np.float32(x) - (row_x[i] + f * (row_x[i + 1] - row_x[i]))
            v = np.float32(y) - (row_y[i] + f * (row_y[i + 1] - row_y[i]))
            if not (u >= 0 and v >= 0 and u <= nx - 1 and v <= ny - 1):
                line[x] = fill
                continue
            p, q = int(u), int(v)
            a0, a1, a2, a3 = _taps(u - np.float32(p))
            b0, b1, b2, b3 = _taps(v - np.float32(q))
            if p >= 1 and q >= 1 and p + 2 < nx and q + 2 < ny:
                r0, r1, r2, r3 = q - 1, q, q + 1, q + 2
                c0, c1, c2, c3 = p - 1, p, p + 1, p + 2
            else:
                r0, r1, r2, r3 = _mirror(q - 1, ny), q, _mirror(q + 1, ny), _mirror(q + 2, ny)
                c0, c1, c2, c3 = _mirror(p - 1, nx), p, _mirror(p + 1, nx), _mirror(p + 2, nx)
            c = coefficients
            line[x] = (
                b0 * (a0 * c[r0, c0] + a1 * c[r0, c1] + a2 * c[r0, c2] + a3 * c[r0, c3])
                + b1 * (a0 * c[r1, c0] + a1 * c[r1, c1] + a2 * c[r1, c2] + a3 * c[r1, c3])
                + b2 * (a0 * c[r2, c0] + a1 * c[r2, c1] + a2 * c[r2, c2] + a3 * c[r2, c3])
                + b3 * (a0 * c[r3, c0] + a1 * c[r3, c1] + a2 * c[r3, c2] + a3 * c[r3, c3])
            )
        for r in range(weights.size):
            w = weights[r]
            target = sums[r, y]
            for x in range(nx):
                target[x] += w * line[x]
