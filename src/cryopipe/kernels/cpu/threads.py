"""Several threads on one compiled function, started from Python.

The loop body of a function compiled with ``parallel=True`` exists twice in the process that compiles it: once by itself,
and once optimised inside its caller. A process that reads the compiler's cache has only the second form. If sums run in
vector lanes, the two forms may round differently. So a cold and a warm cache would give different bits. Therefore each
kernel here is a single function with inlined helpers. It is compiled once and works on a part of a range without the GIL.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba

#: parts per thread. If a thread is delayed, the other threads take over the rest of its parts
_PARTS = 8


def in_parts(task: Callable[..., None], count: int, *arguments: Any) -> None:
    """Call ``task(first, last, *arguments)`` for parts of ``range(count)`` on the threads that Numba may use.

    The parts depend on the number of threads, therefore entries of the range must not depend on each other.
    """
    threads = min(numba.get_num_threads(), count)
    if threads <= 1:
        if count > 0:
            task(0, count, *arguments)
        return
    size = -(-count // (threads * _PARTS))
    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(task, first, min(first + size, count), *arguments) for first in range(0, count, size)]
        for part in running:
            part.result()
