"""Work in batches that shrink where a device's memory runs out; the results stay those of one batch."""

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
    """Return ``work(batch)`` for consecutive batches of ``items``, in order; on MemoryError the batch is halved.

    What works for each item alone, or adds items up one after the other, gives the same whatever the batches were.

    Parameters
    ----------
    work : callable
        Takes a slice of ``items``; must leave nothing behind when it raises MemoryError (allocate first, then change).
    items : sequence or ndarray
    size : int
        Items a batch to begin with; once halved it stays so.
    what : str
        Name of an item for the message.
    halve : bool
        False where the batch decides the result's last digits (products on the CPU): a MemoryError is then passed on.
    free : callable, optional
        Called before the next try; by default gives back the blocks that CuPy keeps for reuse, where CuPy is loaded.

    Raises
    ------
    DeviceError
        A single item does not fit. CuPy's OutOfMemoryError is a MemoryError, as is NumPy's.
    ValueError
        ``size`` is less than 1.
    """
    if size < 1:
        raise ValueError(f"a batch holds at least one {what}, not {size}.")
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
                    f"one {what} does not fit into the memory that is free ({error}): use a smaller radius or box, or "
                    "a device with more memory"
                ) from error
            size = len(batch) // 2
        else:
            start += len(batch)
            continue
        # outside the handler, whose error still holds the frames and arrays of the failed try
        (free or free_cached_blocks)()
    return results


def free_cached_blocks() -> None:
    """Give CuPy's unused cached blocks back to the device, where CuPy is installed."""
    try:
        import cupy
    except ImportError:
        return
    cupy.get_default_memory_pool().free_all_blocks()
