"""Log-likelihoods of candidate defoci, and of noise alone, on the CPU."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from cryopipe.kernels.cpu.pose_parts.cells import next_cells
from cryopipe.kernels.cpu.pose_parts.columns import centre_data, interpolate, take_offset
from cryopipe.kernels.cpu.pose_parts.phases import sin_cos
from cryopipe.kernels.cpu.pose_parts.workspace import BLOCK, DATA, FREQUENCY, GAIN, REDUCE, TURN, WORKSPACE, Y
from cryopipe.kernels.cpu.threads import in_parts

#: columns that only scores use: conj(X) C Y / sigma^2, and behind it what take_offset leaves
CROSS, UNUSED = 26 * BLOCK, 32 * BLOCK


def noise_alone(data: np.ndarray, inverse_variance: np.ndarray, out: np.ndarray) -> None:
    """Fill ``out`` [n] with the sum of |X|^2 / (2 sigma^2) of each image."""
    in_parts(_noise_alone, len(out), data, inverse_variance, out)


@njit(cache=True, nogil=True, fastmath=REDUCE)
def _noise_alone(first, last, data, inverse_variance, out):
    for n in range(first, last):
        variance = inverse_variance[min(n, inverse_variance.shape[0] - 1)]
        total = 0.0
        for begin in range(0, variance.size, BLOCK):
            total += _energy(data[n, 2 * begin : 2 * (begin + BLOCK)], variance[begin : begin + BLOCK])
        out[n] = 0.5 * total


@njit(inline="always")
def _energy(data, variance):
    total = np.float32(0)
    for k in range(variance.size):
        total += (data[2 * k] ** 2 + data[2 * k + 1] ** 2) * variance[k]
    return total


@njit(inline="always")
def _start_defocus(count, scale, first, step, w):
    """Write cross and power of the model without sin(chi), and chi's sine and cosine of the first trial and the step.

    On entry GAIN holds g / sigma of C = g sin(chi). ``first`` holds chi's terms at the first trial, ``step`` the change
    of its k^2 term, in turns. Returns the block's sum of |X|^2 / sigma^2.
    """
    c0, c1, c2, c3, c4 = first[0], first[1], first[2], first[3], first[4]
    energy = np.float32(0)
    for k in range(count):
        x, y = np.float64(w[FREQUENCY + k]), np.float64(w[FREQUENCY + BLOCK + k])
        x2, y2 = x * x, y * y
        k2 = x2 + y2
        sine, cosine = sin_cos(c0 + k2 * (c1 + c4 * k2) + c2 * (x2 - y2) + c3 * (2.0 * x * y))
        turn_sine, turn_cosine = sin_cos(step * k2)
        gain = scale * w[GAIN + k]
        yr, yi = gain * w[Y + k], gain * w[Y + BLOCK + k]
        dr, di = w[DATA + k], w[DATA + BLOCK + k]
        energy += dr * dr + di * di
        w[CROSS + k] = dr * yr + di * yi
        w[CROSS + BLOCK + k] = np.float32(0.5) * (yr * yr + yi * yi)
        w[TURN + k], w[TURN + BLOCK + k] = sine, cosine
        w[TURN + 2 * BLOCK + k], w[TURN + 3 * BLOCK + k] = turn_sine, turn_cosine
    return energy


@njit(inline="always")
def _next_defocus(count, w):
    """Return the block's sum for the present trial and turn chi to the next one."""
    total = np.float32(0)
    for k in range(count):
        sine, cosine = w[TURN + k], w[TURN + BLOCK + k]
        turn_sine, turn_cosine = w[TURN + 2 * BLOCK + k], w[TURN + 3 * BLOCK + k]
        total += sine * (w[CROSS + k] - sine * w[CROSS + BLOCK + k])
        w[TURN + k] = sine * turn_cosine + cosine * turn_sine
        w[TURN + BLOCK + k] = cosine * turn_cosine - sine * turn_sine
    return total


def score_defoci(*arguments: Any) -> None:
    """Fill ``out`` [n, d] with log-likelihoods; the arguments are those of ``_score_defoci``."""
    in_parts(_score_defoci, len(arguments[-1]), *arguments)


@njit(cache=True, nogil=True, fastmath=REDUCE)
def _score_defoci(
    begin_image, end_image, flat, radius, data, ctf, inverse_variance, rotations, shifts, scale, phase, per_unit,
    spectrum, offset, kx, ky, padding, box, first, step, out,
):  # fmt: skip
    """Work through the images at the defocus changes first, first + step, ..."""
    row, column = np.empty((2, BLOCK), np.int32), np.empty((2, BLOCK), np.int32)
    fraction, w = np.empty((2, 4 * BLOCK), np.float32), np.zeros(WORKSPACE, np.float32)
    for n in range(begin_image, end_image):
        variance = inverse_variance[min(n, inverse_variance.shape[0] - 1)]
        a = rotations[n] * padding
        turn_x, turn_y = -shifts[n, 0] / box, -shifts[n, 1] / box
        start = phase[n].copy()
        start[1] += per_unit[n] * first / (2 * np.pi)
        out[n] = 0.0
        energy = 0.0
        ahead = 0
        for begin in range(0, kx.size, BLOCK):
            count = next_cells(flat, radius, a, kx, ky, begin, ahead, row, column, fraction, w)
            ahead = 1 - ahead
            part = slice(begin, begin + count)
            own = data[n, 2 * begin : 2 * (begin + count)]
            centre_data(own, ctf[n, part], variance[part], kx[part], ky[part], turn_x, turn_y, w)
            if begin < spectrum.size:
                take_offset(
                    spectrum[begin : min(begin + count, spectrum.size)],
                    variance[part],
                    kx[part],
                    ky[part],
                    turn_x,
                    turn_y,
                    offset[n],
                    UNUSED,
                    w,
                )
            interpolate(count, w)
            energy += _start_defocus(count, scale[n], start, per_unit[n] * step / (2 * np.pi), w)
            for trial in range(out.shape[1]):
                out[n, trial] += _next_defocus(count, w)
        out[n] -= 0.5 * energy
