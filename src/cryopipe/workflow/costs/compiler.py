"""CPU time of the compilation of kernels. It is needed once on a machine, since compiled kernels are kept."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from functools import cache

from numba.core import event


class CompilerTime(event.Listener):  # type: ignore[misc]
    """Adds up the CPU time of compilations. A thread that waits for a compilation in another thread adds nothing."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth: defaultdict[int, int] = defaultdict(int)
        self._start: dict[int, float] = {}

    def on_start(self, event: object) -> None:
        """Note when the outermost compilation of this thread began."""
        thread = threading.get_ident()
        if self._depth[thread] == 0:
            self._start[thread] = time.thread_time()
        self._depth[thread] += 1

    def on_end(self, event: object) -> None:
        """Add the time of the outermost compilation of this thread."""
        thread = threading.get_ident()
        self._depth[thread] -= 1
        if self._depth[thread] == 0:
            self.seconds += time.thread_time() - self._start.pop(thread)


@cache
def watch_compiler() -> CompilerTime:
    """Return the time that compilations have taken since this was first called."""
    listener = CompilerTime()
    event.register("numba:compiler_lock", listener)
    return listener
