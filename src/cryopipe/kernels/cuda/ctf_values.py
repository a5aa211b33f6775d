"""CTF values on a GPU: launches ``ctf_values.cu``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

_THREADS = 256


@functools.cache
def _kernel() -> Any:
    import cupy

    source = Path(__file__).with_suffix(".cu")
    # The #line directive makes compiler messages point into the file.
    code = f'#line 1 "{source.name}"\n' + source.read_text(encoding="utf-8")
    return cupy.RawModule(code=code).get_function("ctf_values")


def ctf_values_cuda(
    coefficients: np.ndarray, scale: np.ndarray, b_factor_A2: np.ndarray, kx: Any, ky: Any, absolute: bool
) -> Any:
    """Return CuPy float32 ``[n, K]``; arguments as in :func:`cryopipe.kernels.ctf_values.ctf_values`."""
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
        grid = (-(-count // _THREADS), part.stop - part.start, 1)
        chunk = tuple(a[part] for a in arguments[:3])
        _kernel()(grid, (_THREADS,), (*chunk, *arguments[3:], np.int64(count), np.int32(absolute), result[part]))
    return result
