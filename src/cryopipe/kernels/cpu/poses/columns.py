"""Columns of a block's workspace for the fused pose kernels: centred data, CTF, interpolated value and derivatives."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit

from cryopipe.kernels.cpu.poses.blocks import (
    BLOCK,
    DATA,
    FRACTION,
    FREQUENCY,
    GAIN,
    ONE,
    SLOPE,
    TWO,
    U,
    V,
    Y,
)

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
