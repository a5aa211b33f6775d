"""When a test is given up: by the work that it does and not by the clock, so that a loaded machine fails no test.

A test ends when it and the processes it started have used more processor time than its limit (``timeout`` in
pyproject.toml: a loop without an end), or have stood still for too long (a deadlock, an answer that does not come).
Wall time alone ends no test: on a machine that others use as well the same work may take ten times as long.
"""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import psutil
import pytest

#: Seconds between two looks; no test shorter than this costs anything.
LOOK_S = 10.0
#: Seconds of standing still that end a test. The longest honest wait is for another worker that compiles the same
#: kernel: 60 s of work, and ten times as much on a machine with ten times as many jobs as cores.
STILL_S = 900.0
#: A test that uses less of one core than this stands still; Snakemake waiting for a job uses 0.001.
STILL_SHARE = 0.005


class Patience:
    """Watches the running test from a thread of its own and interrupts it with a signal."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.reason = ""
        self._over = threading.Event()
        self._main = threading.main_thread().ident
        self._thread = threading.Thread(target=self._watch, daemon=True, name="patience")

    def start(self) -> None:
        self._before = signal.signal(signal.SIGALRM, self._give_up)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        signal.signal(signal.SIGALRM, self._before)

    def _watch(self) -> None:
        first = None
        while not self._over.wait(LOOK_S):
            now, used = time.monotonic(), processor_time_s() - time.thread_time()  # less what the looks take
            if first is None:
                first = still_since = (now, used)
            if used - still_since[1] > STILL_SHARE * (now - still_since[0]):
                still_since = (now, used)
            if used - first[1] > self.limit_s:
                self.reason = (
                    f"it has used {used - first[1]:.0f} s of processor time; its limit is {self.limit_s:.0f} s"
                )
            elif now - still_since[0] > STILL_S:
                self.reason = f"it has stood still for {now - still_since[0]:.0f} s"
            if self.reason and self._main is not None and not self._over.is_set():
                signal.pthread_kill(self._main, signal.SIGALRM)  # again at every look: cleaning up may hang as well

    def _give_up(self, *_: Any) -> None:
        for process in psutil.Process().children(recursive=True):
            process.kill()
        pytest.fail(f"the test is given up: {self.reason}")


def processor_time_s() -> float:
    """Return the processor time of this process and of all below it, those that have ended included."""
    own = psutil.Process()
    total = 0.0
    for process in [own, *own.children(recursive=True)]:
        try:
            total += sum(process.cpu_times()[:4])  # user and system, and the same of the children that ended
        except psutil.NoSuchProcess:
            continue
    return total


@pytest.hookimpl
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    """Take the place of pytest-timeout's clock."""
    if threading.current_thread() is not threading.main_thread():
        return None  # the clock of pytest-timeout, which needs no signal
    patience = Patience(settings.timeout)
    item.config.stash[RUNNING] = patience
    patience.start()
    return True


@pytest.hookimpl
def pytest_timeout_cancel_timer(item: pytest.Item) -> bool | None:
    """End the watch."""
    patience = item.config.stash.get(RUNNING, None)
    if patience is None:
        return None
    del item.config.stash[RUNNING]
    patience.stop()
    return True


RUNNING = pytest.StashKey[Patience]()
