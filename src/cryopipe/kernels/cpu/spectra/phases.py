"""Spectra of images moved each by its own shift, one image a thread."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit, prange

from cryopipe.kernels.cpu.spectra.ramps import fill_ramp


@njit(cache=True, parallel=True)
def shift_spectra(values, kx, ky, turns, radius, out):
    """Fill ``out`` [n, K] with the spectra of moved images.

    Parameters
    ----------
    values : complex64 [n, K]
        Spectra.
    kx, ky : integer [K]
        Frequencies, Fourier pixels.
    turns : float64 [n, 2]
        Shift (x, y) over the box.
    radius : int
        Largest frequency.
    out : complex64 [n, K]
        Receives the result.
    """
    for i in prange(values.shape[0]):
        along_x = np.empty(radius + 1, np.complex64)
        along_y = np.empty(2 * radius + 1, np.complex64)
        fill_ramp(turns[i, 0], along_x, 0)
        fill_ramp(turns[i, 1], along_y, radius)
        for j in range(kx.size):
            out[i, j] = values[i, j] * (along_x[kx[j]] * along_y[ky[j] + radius])
