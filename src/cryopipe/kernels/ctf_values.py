"""CTF values of many images at many Fourier pixels: float64 phase, float32 sine."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.errors import InputError


def ctf_values(
    coefficients: np.ndarray, scale: np.ndarray, b_factor_A2: np.ndarray, kx: Any, ky: Any, *, absolute: bool = False
) -> Any:
    """Return ``scale · exp(-B k²/4) · sin χ`` (or its absolute value) as float32 ``[n, K]``.

    Parameters
    ----------
    coefficients : float64 ``[n, 5]``
        χ = c0 + c1·k² + c2·(kx² - ky²) + c3·2 kx ky + c4·k⁴ in radians.
    scale, b_factor_A2 : float64 ``[n]``
    kx, ky : array ``[K]``
        Frequencies in 1/Å. NumPy arrays are worked on by Numba, CuPy arrays on the GPU (the result lives there).

    Notes
    -----
    Some 10 float64 and 10 float32 operations a value, 4 bytes written: bound by memory from a few cores on.
    """
    if type(kx) is not type(ky):
        raise TypeError("kx and ky must both be NumPy or both be CuPy arrays")
    if (
        kx.ndim != 1
        or kx.shape != ky.shape
        or coefficients.shape != (len(scale), 5)
        or b_factor_A2.shape != scale.shape
    ):
        raise InputError(
            f"shapes do not fit: coefficients {coefficients.shape}, scale {scale.shape}, B factor {b_factor_A2.shape}, "
            f"kx {kx.shape}, ky {ky.shape}; [n, 5], [n], [n], [K], [K] expected"
        )
    if isinstance(kx, np.ndarray):
        from cryopipe.kernels.cpu.ctf_values import ctf_values_cpu

        frequencies = np.ascontiguousarray(kx, dtype=np.float64), np.ascontiguousarray(ky, dtype=np.float64)
        turns = np.ascontiguousarray(coefficients, dtype=np.float64) / (2.0 * np.pi)
        damped = bool(np.any(b_factor_A2 != 0.0))
        result = np.empty((len(scale), len(kx)), dtype=np.float32)
        ctf_values_cpu(turns, scale, b_factor_A2, *frequencies, damped, absolute, result)
        return result
    from cryopipe.kernels.cuda.ctf_values import ctf_values_cuda

    return ctf_values_cuda(coefficients, scale, b_factor_A2, kx, ky, absolute)
