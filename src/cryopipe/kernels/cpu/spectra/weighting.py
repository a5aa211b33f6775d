"""What images add to a reconstruction: shifted, weighted and reordered in one pass, one image a thread."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit, prange

from cryopipe.kernels.cpu.spectra.ramps import fill_ramp


@njit(cache=True, parallel=True, nogil=True)
def weigh(
    values, ctf, rows, kx, ky, shell, turns, by_shell, by_pixel, order, out, information, finite
):  # fmt: skip
    """Fill values, weights and whether they are finite, for images ``rows``.

    Parameters
    ----------
    values, ctf, rows, kx, ky, shell, turns, by_shell, order
        As in `cryopipe.kernels.spectra.weighting.weigh`.
    by_pixel : float32 [b, K] or [1, 1]
        Factor on each pixel; one of shape [1, 1] is not used.
    out, information, finite : complex64 [b, K], float32 [b, K], bool [b]
        Receive the results.
    """
    radius = by_shell.shape[1] - 1
    for i in prange(rows.size):
        n = rows[i]
        along_x = np.empty(radius + 1, np.complex64)
        along_y = np.empty(2 * radius + 1, np.complex64)
        fill_ramp(turns[i, 0], along_x, 0)
        fill_ramp(turns[i, 1], along_y, radius)
        weighted, certain = np.empty(kx.size, np.complex64), np.empty(kx.size, np.float32)
        total = np.float32(0)
        for j in range(kx.size):
            factor = ctf[n, j] * by_shell[i, shell[j]]
            if by_pixel.shape[0] > 1 or by_pixel.shape[1] > 1:
                factor *= by_pixel[i, j]
            value = values[n, j] * (along_x[kx[j]] * along_y[ky[j] + radius]) * factor
            weighted[j] = value
            certain[j] = factor * ctf[n, j]
            # zero times a finite number is zero, but zero times NaN or infinity is NaN
            total += (value.real + value.imag + certain[j]) * np.float32(0)
        finite[i] = total == 0
        for j in range(kx.size):
            out[i, j] = weighted[order[j]]
            information[i, j] = certain[order[j]]
