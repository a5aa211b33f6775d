"""CTF values on the CPU: the phase in turns, reduced in float64, then sin 2πt as a float32 polynomial."""

from __future__ import annotations

import numba
import numpy as np

from cryopipe.kernels.cpu.pose_parts.phases import sin_cos
from cryopipe.kernels.cpu.threads import in_parts


def ctf_values_cpu(
    turns: np.ndarray,
    scale: np.ndarray,
    b_factor: np.ndarray,
    kx: np.ndarray,
    ky: np.ndarray,
    damped: bool,
    absolute: bool,
    result: np.ndarray,
) -> None:
    """Fill ``result`` [n, K] float32 from ``turns`` [n, 5] (coefficients of χ / 2π); rows are independent.

    Parameters
    ----------
    turns : float64 [n, 5]
        Coefficients of χ / 2π.
    scale, b_factor : array [n]
        Factor and B factor of each row.
    kx, ky : array [K]
        Frequencies.
    damped, absolute : bool
        Whether the B factors count, and whether the absolute value is wanted.
    result : float32 [n, K]
        Receives the values.
    """
    in_parts(_ctf_values, len(result), turns, scale, b_factor, kx, ky, damped, absolute, result)


@numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz", "arcp"})
def _ctf_values(  # type: ignore[no-untyped-def]
    first, last, turns, scale, b_factor, kx, ky, damped, absolute, result
):  # fmt: skip
    for row in range(first, last):
        c0, c1, c2, c3, c4 = turns[row, 0], turns[row, 1], turns[row, 2], turns[row, 3], turns[row, 4]
        factor = np.float32(scale[row])
        out = result[row]
        for i in range(out.shape[0]):
            x2, y2 = kx[i] * kx[i], ky[i] * ky[i]
            k2 = x2 + y2
            turn = c0 + k2 * (c1 + c4 * k2) + c2 * (x2 - y2) + c3 * (2.0 * kx[i] * ky[i])
            out[i] = factor * sin_cos(turn)[0]
        if damped:
            quarter = -0.25 * b_factor[row]
            for i in range(out.shape[0]):
                out[i] *= np.float32(np.exp(quarter * (kx[i] * kx[i] + ky[i] * ky[i])))
        if absolute:
            for i in range(out.shape[0]):
                out[i] = abs(out[i])
