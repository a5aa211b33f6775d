"""The columns of a block: centred data, CTF, grey offset, interpolated values and their derivatives."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit

from cryopipe.kernels.cpu.pose_parts.phases import fixed_turn, shift_phase, sin_cos
from cryopipe.kernels.cpu.pose_parts.workspace import BLOCK, DATA, FRACTION, FREQUENCY, GAIN, ONE, SLOPE, U, V, Y


@njit(inline="always")
def centre_data(data, ctf, variance, kx, ky, turn_x, turn_y, w):
    """Write frequency, C / sigma and X exp(2 pi i (kx turn_x + ky turn_y)) / sigma.

    Parameters
    ----------
    turn_x, turn_y, w
        See :mod:`cryopipe.kernels.cpu.pose_parts.workspace`.
    data : float32 [2 k]
        Spectrum of the image at the samples of the block (re, im).
    ctf, variance : float32 [k]
        CTF, and 1 / sigma^2.
    kx, ky : integer [k]
        Frequencies, Fourier pixels.
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
    turn_x, turn_y, w
        See :mod:`cryopipe.kernels.cpu.pose_parts.workspace`.
    spectrum : float32 [k]
        Spectrum O of what a grey offset of one adds to an image.
    variance : float32 [k]
        1 / sigma^2.
    kx, ky : integer [k]
        Frequencies, Fourier pixels.
    offset : float32
        Present grey offset.
    at : int
        Where the offset's column begins in the workspace.
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
    a, w
        See :mod:`cryopipe.kernels.cpu.pose_parts.workspace`.
    scale : float32
        Relative scale of the image.
    count : int
        Samples of the block.
    """
    _differentiate_part(0, a, scale, count, w)
    _differentiate_part(1, a, scale, count, w)
