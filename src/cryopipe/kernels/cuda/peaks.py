"""Launch of ``peaks.cu``, and the moves of the short list of candidates between device and host."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.kernels.cuda._source import THREADS, blocks, function


def candidates(response: Any, threshold: float, border: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return y, x and score of the local maxima, on the host."""
    import cupy

    marked = cupy.zeros(response.shape, dtype=bool)
    if response.size:
        height, width = response.shape
        function("peaks", "local_maxima")(
            (blocks(response.size),), (THREADS,),
            (response, np.int32(height), np.int32(width), np.float64(threshold), np.int32(border), marked),
        )  # fmt: skip
    y, x = cupy.nonzero(marked)
    return cupy.asnumpy(y), cupy.asnumpy(x), cupy.asnumpy(response[y, x])


def values_at(array: Any, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the values of a device array at host indices, on the host."""
    import cupy

    return cupy.asnumpy(array[cupy.asarray(y), cupy.asarray(x)])


def to_device(y: np.ndarray, x: np.ndarray, score: np.ndarray) -> tuple[Any, Any, Any]:
    """Return the three lists as CuPy arrays."""
    import cupy

    return cupy.asarray(y), cupy.asarray(x), cupy.asarray(score)
