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
        Frequencies in 1/Å. NumPy arrays are computed on the CPU (Numba), CuPy arrays on the GPU. The result is on the
        same device.

    Notes
    -----
    A value takes about 10 float64 and 10 float32 operations and 4 bytes of output. With more than a few cores the memory
    bandwidth is the limit.
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
            f"kx {kx.shape}, ky {ky.shape}. Give [n, 5], [n], [n], [K], [K]."
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
