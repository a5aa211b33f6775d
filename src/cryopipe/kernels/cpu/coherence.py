"""Sum of moved spectra and the slope of its power, on the CPU: one patch of a movie a call, without the GIL."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit


@njit(inline="always")
def _turns(frequencies, shift, out):
    """Fill ``out`` with exp(-2πi k shift)."""
    for i in range(frequencies.size):
        angle = -2.0 * np.pi * frequencies[i] * shift
        out[i] = np.complex64(np.cos(angle) + 1j * np.sin(angle))


@njit(forceinline=True, fastmath={"contract"})
def _product(a, b):
    """Return a b, fused; Numba's own complex product rounds strictly, see `cryopipe.kernels._internal_functions`."""
    return np.complex64(complex(a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real))


@njit(cache=True, nogil=True, fastmath={"contract"})
def coherent_sum(values, shifts, ky, kx, starts, lengths, total):
    """Add the moved spectra ``values`` [n, K] to ``total`` [K].

    Parameters
    ----------
    values : complex64 [n, K]
        Spectra.
    shifts : float64 [n, 2]
        (x, y) by which the content of each is moved, pixels.
    ky, kx : float64 [rows], [columns]
        Frequencies, 1/px.
    starts, lengths : int64 [rows]
        Place of a row in K, and how many of its frequencies take part.
    total : complex64 [K]
        Receives the sum.
    """
    columns, row = np.empty(kx.size, np.complex64), np.empty(1, np.complex64)
    for t in range(values.shape[0]):
        _turns(kx, shifts[t, 0], columns)
        for j in range(ky.size):
            _turns(ky[j : j + 1], shifts[t, 1], row)
            turn = row[0]
            first = starts[j]
            for i in range(lengths[j]):
                total[first + i] += _product(values[t, first + i], _product(turn, columns[i]))


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def shift_gradients(values, total, weights, shifts, ky, kx, starts, lengths, gradients):
    """Fill ``gradients`` [n, 2] with the slope of Σ w |total|² in the shift of every spectrum.

    Parameters
    ----------
    values : complex64 [n, K]
        Spectra.
    total : complex64 [K]
        Result of :func:`coherent_sum`.
    weights : float32 [K]
        Weight w of each frequency.
    shifts : float64 [n, 2]
        (x, y) by which the content of each is moved, pixels.
    ky, kx : float64 [rows], [columns]
        Frequencies, 1/px.
    starts, lengths : int64 [rows]
        Place of a row in K, and how many of its frequencies take part.
    gradients : float64 [n, 2]
        Receives the slopes (x, y) in 1/px.
    """
    columns, row = np.empty(kx.size, np.complex64), np.empty(1, np.complex64)
    waves = kx.astype(np.float32)
    for t in range(values.shape[0]):
        _turns(kx, shifts[t, 0], columns)
        gx, gy = 0.0, 0.0
        for j in range(ky.size):
            _turns(ky[j : j + 1], shifts[t, 1], row)
            turn = row[0]
            first = starts[j]
            along, across = np.float32(0.0), np.float32(0.0)
            for i in range(lengths[j]):
                z = _product(values[t, first + i], _product(turn, columns[i]))
                s = total[first + i]
                slope = weights[first + i] * (s.real * z.imag - s.imag * z.real)
                across += slope
                along += slope * waves[i]
            gx += float(along)
            gy += float(across) * ky[j]
        gradients[t, 0] = 4.0 * np.pi * gx
        gradients[t, 1] = 4.0 * np.pi * gy
