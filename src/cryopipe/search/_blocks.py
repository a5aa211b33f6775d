"""Work in blocks that are halved where a GPU's memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from cryopipe.errors import DeviceError

Result = TypeVar("Result")


def over_blocks(
    work: Callable[[np.ndarray], Result], items: np.ndarray, size: int, *, halve: bool = False
) -> list[Result]:
    """Return ``work(part)`` of consecutive parts of ``items``, in order.

    Parameters
    ----------
    work : callable
        Must leave nothing behind when it raises MemoryError.
    items : ndarray [n]
    size : int
        Items a part.
    halve : bool
        On MemoryError (CuPy's OutOfMemoryError is one) free cached blocks, halve the size for this and all later
        parts, and go on.

    Raises
    ------
    DeviceError
        A single item does not fit.
    """
    results = []
    start = 0
    while start < len(items):
        part = items[start : start + size]
        try:
            results.append(work(part))
        except MemoryError as error:
            if not halve:
                raise
            if len(part) == 1:
                raise DeviceError(
                    f"one image does not fit into the GPU's free memory ({error}): use fewer states or shifts, a "
                    "smaller radius, or a larger GPU"
                ) from error
            _free_cached_memory()
            size = max(1, len(part) // 2)
            continue
        start += len(part)
    return results


def _free_cached_memory() -> None:
    try:
        import cupy
    except ImportError:  # a tile in array expressions on the CPU
        return
    cupy.get_default_memory_pool().free_all_blocks()
