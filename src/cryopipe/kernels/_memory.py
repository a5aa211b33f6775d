"""Work in batches that become smaller when a device's memory is full. The results are those of one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from cryopipe.errors import DeviceError

Result = TypeVar("Result")


def in_batches(
    work: Callable[[Any], Result],
    items: Sequence[Any] | Any,
    size: int,
    *,
    what: str = "item",
    halve: bool = True,
    free: Callable[[], None] | None = None,
) -> list[Result]:
    """Return ``work(batch)`` for consecutive batches of ``items``, in order. On MemoryError the batch is halved.

    The batches do not change the result of work on each item alone, or of sums over one item after the other.

    Parameters
    ----------
    work : callable
        Takes a slice of ``items``. If it raises MemoryError, it must not have changed anything (allocate first, then
        change).
    items : sequence or ndarray
    size : int
        Items of the first batch. Once halved, the size stays halved.
    what : str
        Name of an item for the message.
    halve : bool
        False if the last digits of the result depend on the batch (products on the CPU). A MemoryError is then raised.
    free : callable, optional
        Called before the next try. By default it releases the blocks that CuPy keeps for reuse, if CuPy is loaded.

    Raises
    ------
    DeviceError
        A single item does not fit. CuPy's OutOfMemoryError is a MemoryError, as is NumPy's.
    ValueError
        ``size`` is less than 1.
    """
    if size < 1:
        raise ValueError(f"a batch must have at least one {what}, not {size}.")
    results = []
    start = 0
    while start < len(items):
        batch = items[start : start + size]
        try:
            results.append(work(batch))
        except MemoryError as error:
            if not halve:
                raise
            if len(batch) == 1:
                raise DeviceError(
                    f"one {what} does not fit into the free memory ({error}). Use a smaller radius or box, or a device "
                    "with more memory."
                ) from error
            size = len(batch) // 2
        else:
            start += len(batch)
            continue
        # outside the handler, because its error still keeps the frames and arrays of the failed try
        (free or free_cached_blocks)()
    return results


def free_cached_blocks() -> None:
    """Release CuPy's unused cached blocks to the device, if CuPy is loaded."""
    try:
        import cupy
    except ImportError:
        return
    cupy.get_default_memory_pool().free_all_blocks()
