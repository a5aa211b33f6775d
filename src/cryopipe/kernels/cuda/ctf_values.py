"""CTF values on a GPU: launches ``ctf_values.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.kernels.cuda._source import THREADS, blocks, function


def ctf_values_cuda(
    coefficients: np.ndarray, scale: np.ndarray, b_factor_A2: np.ndarray, kx: Any, ky: Any, absolute: bool
) -> Any:
    """Return CuPy float32 ``[n, K]``; arguments as in :func:`cryopipe.kernels.ctf_values.ctf_values`.

    Parameters
    ----------
    coefficients : array [n, 5]
        Coefficients of the phase.
    scale, b_factor_A2 : array [n]
        Factor and B factor of each row.
    kx, ky : CuPy array [K]
        Frequencies.
    absolute : bool
        Return the absolute value.
    """
    import cupy

    n, count = len(scale), len(kx)
    result = cupy.empty((n, count), dtype=cupy.float32)
    if result.size == 0:
        return result
    rows = min(n, 32768)  # a grid's y extent is at most 65535
    arguments = (
        cupy.asarray(np.asarray(coefficients, dtype=np.float64) / (2.0 * np.pi)),
        cupy.asarray(scale, dtype=cupy.float64),
        cupy.asarray(b_factor_A2, dtype=cupy.float64),
        cupy.ascontiguousarray(kx, dtype=cupy.float64),
        cupy.ascontiguousarray(ky, dtype=cupy.float64),
    )
    for first in range(0, n, rows):
        part = slice(first, min(first + rows, n))
        grid = (blocks(count), part.stop - part.start)
        chunk = tuple(a[part] for a in arguments[:3])
        function("ctf_values", "ctf_values")(
            grid, (THREADS,), (*chunk, *arguments[3:], np.int64(count), np.int32(absolute), result[part])
        )
    return result
