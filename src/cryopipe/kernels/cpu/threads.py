"""Several threads on one compiled function, started from Python.

A function compiled with ``parallel=True`` exists twice in the process that compiles it: its loop body by itself, and
optimised once more within what calls it. A process that reads the compiler's cache has the second alone. Where sums run
in vector lanes the two may round differently, so a cold and a warm cache would give different bits. The kernels here are
therefore single functions, compiled once, their helpers inlined, that work through a part of a range without the GIL.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba

#: parts for each thread: a thread that the machine holds up leaves the rest of its share to the others
_PARTS = 8


def in_parts(task: Callable[..., None], count: int, *arguments: Any) -> None:
    """Call ``task(first, last, *arguments)`` for parts of ``range(count)`` on the threads that Numba may use.

    The parts depend on the number of threads: entries of the range must not depend on each other.
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
