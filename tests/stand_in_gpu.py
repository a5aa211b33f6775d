"""NumPy in the place of CuPy: what is said to lie on a GPU stays in host memory, and the CPU's kernels work on it.

It shows that data take the way of the devices, not that CUDA kernels are right.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest


class StandIn(ModuleType):
    """The part of CuPy that the engines ask for, with ``count`` devices.

    Attributes
    ----------
    moved : Counter
        Arrays that were moved to each device.
    """

    def __init__(self, count: int) -> None:
        super().__init__("cupy")
        self.moved: Counter[int] = Counter()
        here = threading.local()
        outer = self

        class Device:
            def __init__(self, number: int) -> None:
                assert 0 <= number < count
                self.number = number

            def __enter__(self) -> None:
                self.before = getattr(here, "number", 0)
                here.number = self.number

            def __exit__(self, *_: object) -> None:
                here.number = self.before

        def asarray(array: Any, dtype: Any = None) -> np.ndarray:
            outer.moved[getattr(here, "number", 0)] += 1
            return np.asarray(array, dtype)

        class NoArray:
            """No array is one of CuPy's."""

        self.ndarray = NoArray
        self.asarray = asarray
        self.zeros = np.zeros
        runtime = SimpleNamespace(memGetInfo=lambda: (1 << 33, 1 << 34), getDeviceCount=lambda: count)
        self.cuda = SimpleNamespace(Device=Device, runtime=runtime)
        self.get_default_memory_pool = lambda: SimpleNamespace(free_bytes=lambda: 0)


@contextlib.contextmanager
def stand_in_gpus(count: int) -> Iterator[StandIn]:
    """Let ``import cupy`` give a `StandIn` within the block."""
    with pytest.MonkeyPatch.context() as patch:
        module = StandIn(count)
        patch.setitem(sys.modules, "cupy", module)
        yield module
