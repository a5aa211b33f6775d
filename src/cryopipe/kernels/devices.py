"""Memory, CPU threads and GPUs that a computation may use, and the distribution of blocks of rows over GPUs."""

from __future__ import annotations

import functools
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numba
import numpy as np

from cryopipe.errors import DeviceError

Result = TypeVar("Result")

_PROBE = 'extern "C" __global__ void probe(int* out) { out[threadIdx.x] = 37 + threadIdx.x; }'


@dataclass(frozen=True)
class Resources:
    """Memory, CPU threads and GPUs that a computation may use.

    Attributes
    ----------
    threads : int, optional
        CPU threads. By default the number that Numba may use. They do not change a result.
    memory_bytes : int
        Working memory of a search in addition to its input and its sums. It does not change a result on the CPU.
    devices : tuple of int, optional
        CUDA devices that share the images. Arrays are then in host memory. Without devices the computation runs on the
        device of its arrays.
    block : int
        Images that a search sends to a device at a time. The last digits of results depend on it. They do not depend on
        the number of devices.
    """

    threads: int | None = None
    memory_bytes: int = 1 << 30
    devices: tuple[int, ...] | None = None
    block: int = 4096

    @property
    def cpu_threads(self) -> int:
        """The number of CPU threads, at least one."""
        return numba.get_num_threads() if self.threads is None else max(1, self.threads)


@functools.cache
def gpu_unavailable_reason() -> str | None:
    """Return None if a CUDA kernel compiles, runs and returns the right numbers. Otherwise return the reason.

    The kernel runs once in each process that calls this function.
    """
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed"
    try:
        out = cupy.zeros(32, dtype=cupy.int32)
        cupy.RawModule(code=_PROBE).get_function("probe")((1,), (32,), (out,))
        values = cupy.asnumpy(out)
    except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
        return f"no CUDA device can be used: {error}"
    except cupy.cuda.compiler.CompileException as error:
        return f"CUDA sources do not compile: {error}"
    except (RuntimeError, OSError) as error:  # a CUDA library (NVRTC, the driver) that cannot be loaded
        return f"CUDA does not work here: {error}"
    if not np.array_equal(values, 37 + np.arange(32)):
        return "a probe kernel ran and returned wrong numbers"
    return None


def gpu_available() -> bool:
    """Return whether a CUDA kernel really runs here (see `gpu_unavailable_reason`)."""
    return gpu_unavailable_reason() is None


def visible_devices() -> list[int]:
    """Return the numbers of the CUDA devices that can be used. The list is empty if no kernel runs."""
    if not gpu_available():
        return []
    import cupy

    return list(range(cupy.cuda.runtime.getDeviceCount()))


def over_devices(
    work: Callable[[int, slice], Result], n: int, block: int, devices: Sequence[int], *, activate: bool = True
) -> list[Result]:
    """Return ``work(device, rows)`` for the blocks of ``0..n``, in their order. Each device works on one at a time.

    Blocks depend on their size alone, and their results are returned in order. So sums over them do not depend on the
    number of devices.

    Parameters
    ----------
    work : callable
        Called in a thread of its own for each device, with that device current.
    n, block : int
        Rows, and rows in a block.
    devices : sequence of int
        CUDA device numbers (`visible_devices`).
    activate : bool
        Make the device CuPy's current one during the call. False if ``work`` does this itself or does not need it.

    Raises
    ------
    DeviceError
        The list of devices is empty.
    """
    if not devices:
        raise DeviceError("the list of GPUs is empty. Run on the CPU or make a device visible.")
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for device in devices:
        free.put(device)

    def run(start: int) -> Result:
        device = free.get()
        try:
            rows = slice(start, min(start + block, n))
            if not activate:
                return work(device, rows)
            import cupy

            with cupy.cuda.Device(device):
                return work(device, rows)
        finally:
            free.put(device)

    with ThreadPoolExecutor(len(devices)) as pool:
        return list(pool.map(run, range(0, n, max(1, block))))


def to_device(array: Any) -> Any:
    """Return the array on CuPy's current device."""
    import cupy

    return cupy.asarray(array)
