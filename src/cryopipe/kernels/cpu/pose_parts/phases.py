"""Sines and cosines of turns in float32, without a branch."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit

from cryopipe.kernels.cpu.pose_parts.workspace import ONE

TWO = np.float32(2)
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
def _half_turn(t):
    """Return float32 (sin, cos) of 2 pi t for |t| <= 1/4."""
    q = t * t
    sine = t * (_S0 + q * (_S1 + q * (_S2 + q * (_S3 + q * (_S4 + q * _S5)))))
    cosine = _C0 + q * (_C1 + q * (_C2 + q * (_C3 + q * (_C4 + q * (_C5 + q * _C6)))))
    return sine, cosine


@njit(inline="always")
def sin_cos(turns):
    """Return float32 (sin, cos) of 2 pi turns; turns in float64 are folded to the nearest half turn."""
    halves = np.rint(2.0 * turns)
    t = np.float32(turns - 0.5 * halves)
    parity = np.float32(halves - 2.0 * np.rint(0.5 * halves))  # 0 for even, +-1 for odd
    flip = ONE - TWO * parity * parity
    sine, cosine = _half_turn(t)
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
    sine, cosine = _half_turn(t)
    return flip * sine, flip * cosine
