"""Blocks of Fourier pixels for the fused pose kernels: cells of the cube, centred data, CTFs.

All columns of a block lie in one flat workspace, at offsets that the compiler knows: so it proves by itself that they do
not overlap, and vectorises every loop. While a block is worked on, the cube's cache lines of the next one are on their way.
"""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit

from cryopipe.kernels.cpu.vectors import prefetch, transpose_four

#: samples of a block. Sums over a block run in float32, sums of blocks in float64: rounding stays near 1e-6
BLOCK = 128
#: for sums: their terms may be reordered, or they could not vectorise; NaN and infinity keep their meaning
REDUCE = {"contract", "nsz", "arcp", "reassoc"}
#: columns of the workspace: 8 corners (re, im), fractions, half of the cube read, frequency, C/sigma, dC/dchi/sigma,
#: centred data / sigma, rotation columns u and v, interpolated value Y, up to five further columns, shifted CTF phase
FRACTION, FREQUENCY, GAIN, SLOPE = 16 * BLOCK, 20 * BLOCK, 22 * BLOCK, 23 * BLOCK
DATA, U, V, Y, EXTRA, TURN = 24 * BLOCK, 26 * BLOCK, 28 * BLOCK, 30 * BLOCK, 32 * BLOCK, 42 * BLOCK
WORKSPACE = 46 * BLOCK
ONE, TWO, HALF = np.float32(1), np.float32(2), 0.5
#: half a turn in units of 2^-32 turns and of turns
QUANTUM = np.float32(2.0**-33)

# sin(2 pi t)/t and cos(2 pi t) on |t| <= 1/4 in powers of t^2: Chebyshev interpolations, errors 3e-11 and 1e-12, so the
# error is that of float32 arithmetic (2e-7)
_S0, _S1, _S2 = np.float32(6.283185307072258), np.float32(-41.341702116741764), np.float32(81.6052261738358)
_S3, _S4, _S5 = np.float32(-76.70427986968328), np.float32(42.00977921610078), np.float32(-14.39396588007609)
_C0, _C1, _C2 = np.float32(0.9999999999992484), np.float32(-19.739208800999545), np.float32(64.93939372062428)
_C3, _C4, _C5 = np.float32(-85.45678817841585), np.float32(60.24331181762472), np.float32(-26.39494875073433)
_C6 = np.float32(7.536600657871792)


@njit(inline="always")
def sin_cos(turns):
    """Return float32 (sin, cos) of 2 pi turns; turns in float64 are folded to the nearest half turn."""
    halves = np.rint(2.0 * turns)
    t = np.float32(turns - 0.5 * halves)
    parity = np.float32(halves - 2.0 * np.rint(0.5 * halves))  # 0 for even, +-1 for odd
    flip = ONE - TWO * parity * parity
    q = t * t
    sine = t * (_S0 + q * (_S1 + q * (_S2 + q * (_S3 + q * (_S4 + q * _S5)))))
    cosine = _C0 + q * (_C1 + q * (_C2 + q * (_C3 + q * (_C4 + q * (_C5 + q * _C6)))))
    return flip * sine, flip * cosine


@njit(inline="always")
def place(kx, ky, a, radius, row, column, fraction):
    """Locate the cells around the samples a^T (kx, ky, 0): row of x-lines, column along x, fractions and half.

    Parameters
    ----------
    kx, ky : integer [k]
        Frequencies of at most BLOCK samples, Fourier pixels.
    a : float32 [3, 3]
        Pose matrix times the padding.
    radius : int
        Radius of the cube in grid steps.
    row : int32 [BLOCK]
        Row of x-lines of each cell.
    column : int32 [BLOCK]
        Column of each cell along x.
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
    flat : float32 [2 V]
        Half cube of the reference, V voxels of radius ``radius``, flat.
    radius : int
        Radius of the cube in grid steps.
    row : int32 [BLOCK]
        Row of x-lines of each cell.
    column : int32 [BLOCK]
        Column of each cell along x.
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
    flat : float32 [2 V]
        Half cube of the reference, V voxels of radius ``radius``, flat.
    radius : int
        Radius of the cube in grid steps.
    row : int32 [BLOCK]
        Row of x-lines of each cell.
    column : int32 [BLOCK]
        Column of each cell along x.
    count : int
        Number of cells.
    w : float32 [WORKSPACE]
        Workspace of a block; its columns begin at the offsets of this module.
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
    flat : float32 [2 V]
        Half cube of the reference, V voxels of radius ``radius``, flat.
    radius : int
        Radius of the cube in grid steps.
    a : float32 [3, 3]
        Pose matrix times the padding.
    kx, ky : integer [K]
        Frequencies of all samples, Fourier pixels.
    begin : int
        First sample of the block.
    ahead : {0, 1}
        Which of the two buffers holds the cells of the block.
    row, column, fraction : array [2, ...]
        Two buffers of what :func:`place` writes.
    w : float32 [WORKSPACE]
        Workspace of a block; its columns begin at the offsets of this module.
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


@njit(inline="always")
def fixed_turn(turn):
    """Return a finite ``turn`` modulo one in units of 2^-32 turns: products with integers wrap at whole turns."""
    return np.int32(np.int64(np.rint((turn - np.rint(turn)) * 4294967296.0)))


@njit(inline="always")
def shift_phase(kx, ky, fixed_x, fixed_y):
    """Return float32 (sin, cos) of 2 pi (kx turn_x + ky turn_y), error below 1e-6 up to |k| = 512; turns as `fixed_turn`s.

    Parameters
    ----------
    kx, ky : integer
        Frequency, Fourier pixels.
    fixed_x, fixed_y : int32
        Shift over the box, as :func:`fixed_turn` gives it.
    """
    turn = np.int32(np.int64(kx) * np.int64(fixed_x) + np.int64(ky) * np.int64(fixed_y))
    folded = np.int32(np.int64(turn) << 1)  # in half turns: what lies beyond a quarter turn comes from the other side
    flip = ONE if (turn ^ folded) >= 0 else -ONE
    t = np.float32(folded) * QUANTUM
    q = t * t
    sine = t * (_S0 + q * (_S1 + q * (_S2 + q * (_S3 + q * (_S4 + q * _S5)))))
    cosine = _C0 + q * (_C1 + q * (_C2 + q * (_C3 + q * (_C4 + q * (_C5 + q * _C6)))))
    return flip * sine, flip * cosine


@njit(inline="always")
def centre_data(data, ctf, variance, kx, ky, turn_x, turn_y, w):
    """Write frequency, C / sigma and X exp(2 pi i (kx turn_x + ky turn_y)) / sigma.

    Parameters
    ----------
    data : float32 [2 k]
        Spectrum of the image at the samples of the block (re, im).
    ctf, variance : float32 [k]
        CTF, and 1 / sigma^2.
    kx, ky : integer [k]
        Frequencies, Fourier pixels.
    turn_x, turn_y : float
        Shift over the box.
    w : float32 [WORKSPACE]
        Workspace of a block; its columns begin at the offsets of this module.
    """
    fixed_x, fixed_y = fixed_turn(turn_x), fixed_turn(turn_y)
    nothing = np.float32(0.0 * (turn_x + turn_y))  # NaN where a shift is not finite
    for k in range(kx.size):
        sine, cosine = shift_phase(kx[k], ky[k], fixed_x, fixed_y)
        root = np.sqrt(variance[k]) + nothing
        real, imaginary = data[2 * k] * root, data[2 * k + 1] * root
        w[FREQUENCY + k] = np.float32(kx[k])
        w[FREQUENCY + BLOCK + k] = np.float32(ky[k])
        w[GAIN + k] = ctf[k] * root
        w[DATA + k] = real * cosine - imaginary * sine
        w[DATA + BLOCK + k] = real * sine + imaginary * cosine


@njit(inline="always")
def apply_phase(phase, count, w):
    """Turn the gain g into the CTF g sin(chi) and write its slope g cos(chi); ``phase`` holds chi's 5 terms in turns."""
    c0, c1, c2, c3, c4 = phase[0], phase[1], phase[2], phase[3], phase[4]
    for k in range(count):
        x, y = np.float64(w[FREQUENCY + k]), np.float64(w[FREQUENCY + BLOCK + k])
        x2, y2 = x * x, y * y
        k2 = x2 + y2
        sine, cosine = sin_cos(c0 + k2 * (c1 + c4 * k2) + c2 * (x2 - y2) + c3 * (2.0 * x * y))
        gain = w[GAIN + k]
        w[SLOPE + k] = gain * cosine
        w[GAIN + k] = gain * sine


@njit(inline="always")
def take_offset(spectrum, variance, kx, ky, turn_x, turn_y, offset, at, w):
    """Write the column of the grey offset, O exp(...) / sigma, and subtract ``offset`` times it from the data.

    Parameters
    ----------
    spectrum : float32 [k]
        Spectrum O of what a grey offset of one adds to an image.
    variance : float32 [k]
        1 / sigma^2.
    kx, ky : integer [k]
        Frequencies, Fourier pixels.
    turn_x, turn_y : float
        Shift over the box.
    offset : float32
        Present grey offset.
    at : int
        Where the offset's column begins in the workspace.
    w : float32 [WORKSPACE]
        Workspace of a block; its columns begin at the offsets of this module.
    """
    fixed_x, fixed_y = fixed_turn(turn_x), fixed_turn(turn_y)
    for k in range(spectrum.size):
        sine, cosine = shift_phase(kx[k], ky[k], fixed_x, fixed_y)
        size = spectrum[k] * np.sqrt(variance[k])
        w[at + k] = size * cosine
        w[at + BLOCK + k] = size * sine
        w[DATA + k] -= offset * size * cosine
        w[DATA + BLOCK + k] -= offset * size * sine
    for k in range(spectrum.size, BLOCK):
        w[at + k] = 0
        w[at + BLOCK + k] = 0


@njit(inline="always")
def _interpolate_part(part, count, w):
    at = part * BLOCK
    for k in range(count):
        fx, fy, fz = w[FRACTION + k], w[FRACTION + BLOCK + k], w[FRACTION + 2 * BLOCK + k]
        even = ONE if part == 0 else w[FRACTION + 3 * BLOCK + k]
        c0, c1, c2, c3 = w[at + k], w[at + 4 * BLOCK + k], w[at + 8 * BLOCK + k], w[at + 12 * BLOCK + k]
        p = c0 + fx * (w[at + 2 * BLOCK + k] - c0)
        q = c1 + fx * (w[at + 6 * BLOCK + k] - c1)
        r = c2 + fx * (w[at + 10 * BLOCK + k] - c2)
        s = c3 + fx * (w[at + 14 * BLOCK + k] - c3)
        low = p + fy * (q - p)
        high = r + fy * (s - r)
        w[Y + at + k] = even * (low + fz * (high - low))


@njit(inline="always")
def interpolate(count, w):
    """Write the trilinear value Y, conjugated where the mate was read."""
    _interpolate_part(0, count, w)
    _interpolate_part(1, count, w)


@njit(inline="always")
def _differentiate_part(part, a, scale, count, w):
    at = part * BLOCK
    a00, a01, a02 = a[0, 0], a[0, 1], a[0, 2]
    a10, a11, a12 = a[1, 0], a[1, 1], a[1, 2]
    a20, a21, a22 = a[2, 0], a[2, 1], a[2, 2]
    for k in range(count):
        fx, fy, fz = w[FRACTION + k], w[FRACTION + BLOCK + k], w[FRACTION + 2 * BLOCK + k]
        sign = w[FRACTION + 3 * BLOCK + k]
        # at -q the value is the conjugate, and its gradient by q is minus the conjugate gradient
        even = ONE if part == 0 else sign
        odd = sign if part == 0 else ONE
        x, y = w[FREQUENCY + k], w[FREQUENCY + BLOCK + k]
        ex = y * a00 - x * a10
        ey = y * a01 - x * a11
        ez = y * a02 - x * a12
        tilted = odd * scale * w[GAIN + k]
        c0, c1, c2, c3 = w[at + k], w[at + 4 * BLOCK + k], w[at + 8 * BLOCK + k], w[at + 12 * BLOCK + k]
        ax = w[at + 2 * BLOCK + k] - c0
        bx = w[at + 6 * BLOCK + k] - c1
        cx = w[at + 10 * BLOCK + k] - c2
        dx = w[at + 14 * BLOCK + k] - c3
        p = c0 + fx * ax
        q = c1 + fx * bx - p
        r = c2 + fx * cx
        s = c3 + fx * dx - r
        low = p + fy * q
        gz = r + fy * s - low
        gy = q + fz * (s - q)
        low_x = ax + fy * (bx - ax)
        gx = low_x + fz * (cx + fy * (dx - cx) - low_x)
        w[Y + at + k] = even * (low + fz * gz)
        w[U + at + k] = tilted * (gx * a20 + gy * a21 + gz * a22)
        w[V + at + k] = tilted * (gx * ex + gy * ey + gz * ez)


@njit(inline="always")
def differentiate(a, scale, count, w):
    """Write Y and the rotation columns u and v, divided by sigma.

    With the padded pose a = padding A, u = scale C grad(Y).a[2] and v = scale C grad(Y).(ky a[0] - kx a[1]): turning
    the pose by exp([w]x) from the left moves a sample by wx (-ky a[2]) + wy (kx a[2]) + wz (ky a[0] - kx a[1]).

    Parameters
    ----------
    a : float32 [3, 3]
        Pose matrix times the padding.
    scale : float32
        Relative scale of the image.
    count : int
        Samples of the block.
    w : float32 [WORKSPACE]
        Workspace of a block; its columns begin at the offsets of this module.
    """
    _differentiate_part(0, a, scale, count, w)
    _differentiate_part(1, a, scale, count, w)
