"""Measuring tools of the benchmarks: a stopwatch, the memory of a process, and the speed of the machine's memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import numba
import numpy as np


class Stopwatch:
    """Wall time and CPU time of a ``with`` block. On a shared machine only the CPU time means something.

    With ``children`` the CPU time is that of programs that ended in the block, not that of this process.
    """

    def __init__(self, *, children: bool = False) -> None:
        self.who = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF
        self.seconds = self.user_seconds = self.system_seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._usage, self._start = resource.getrusage(self.who), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
        usage = resource.getrusage(self.who)
        self.user_seconds = usage.ru_utime - self._usage.ru_utime
        self.system_seconds = usage.ru_stime - self._usage.ru_stime

    @property
    def cpu_seconds(self) -> float:
        """CPU time in the block, of the program and of the system."""
        return self.user_seconds + self.system_seconds


def best_of(repeats: int, call: Callable[[], object]) -> tuple[float, float]:
    """Return the least wall time and the least CPU time of several calls, after a first call that compiles."""
    call()
    times, cpu_times = [], []
    for _ in range(repeats):
        with Stopwatch() as watch:
            call()
        times.append(watch.seconds)
        cpu_times.append(watch.cpu_seconds)
    return min(times), min(cpu_times)


def peak_memory_GB(*, children: bool = False) -> float:
    """Return the largest resident memory so far of this process, or of a program that it started."""
    who = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF
    return resource.getrusage(who).ru_maxrss * 1024 / 1e9


@numba.njit(parallel=True, fastmath=True)
def _triad(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    for i in numba.prange(a.size):
        c[i] = a[i] + np.float32(2) * b[i]


def triad(floats: int = 1 << 26) -> tuple[float, float]:
    """Return the speed of the memory in GB/s and in GB per CPU second: best of eight passes over three arrays of 256 MB."""
    a, b, c = np.ones(floats, np.float32), np.ones(floats, np.float32), np.empty(floats, np.float32)
    seconds, cpu_seconds = best_of(8, lambda: _triad(a, b, c))
    return 12 * floats / seconds / 1e9, 12 * floats / cpu_seconds / 1e9
