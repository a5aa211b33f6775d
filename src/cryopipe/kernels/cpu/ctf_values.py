"""CTF values on the CPU: the phase in turns, reduced in float64, then sin 2πt as a float32 polynomial."""

from __future__ import annotations

import numba
import numpy as np

from cryopipe.kernels.cpu.threads import in_parts

# sin(2πt)/t on |t| <= 1/4 in powers of t²: Chebyshev interpolation of degree 5, its error below 3e-11,
# hence the error is that of float32 arithmetic (2e-7).
_S0 = np.float32(6.283185307072258)
_S1 = np.float32(-41.341702116741764)
_S2 = np.float32(81.6052261738358)
_S3 = np.float32(-76.70427986968328)
_S4 = np.float32(42.00977921610078)
_S5 = np.float32(-14.39396588007609)


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
            # Fold to the nearest half turn: sin(2π(t + m/2)) = (-1)^m sin 2πt, |t| <= 1/4.
            halves = np.rint(2.0 * turn)
            t = np.float32(turn - 0.5 * halves)
            parity = np.float32(halves - 2.0 * np.rint(0.5 * halves))  # 0 for even, ±1 for odd
            flip = np.float32(1.0) - np.float32(2.0) * parity * parity
            t2 = t * t
            sine = t * (_S0 + t2 * (_S1 + t2 * (_S2 + t2 * (_S3 + t2 * (_S4 + t2 * _S5)))))
            out[i] = factor * flip * sine
        if damped:
            quarter = -0.25 * b_factor[row]
            for i in range(out.shape[0]):
                out[i] *= np.float32(np.exp(quarter * (kx[i] * kx[i] + ky[i] * ky[i])))
        if absolute:
            for i in range(out.shape[0]):
                out[i] = abs(out[i])
