"""What a computation may use: memory, CPU threads and GPUs; and blocks of rows shared out over several GPUs."""

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
    """What a computation may use.

    Attributes
    ----------
    threads : int, optional
        CPU threads; the number that Numba may use by default. They change no bit of a result.
    memory_bytes : int
        Working memory of a search on top of its input and its sums. It changes no bit of a result on the CPU.
    devices : tuple of int, optional
        CUDA devices to spread the images over. Arrays are then given in host memory. Without devices the computation
        runs where its arrays are.
    block : int
        Images sent to a device at a time by a search. Results depend on it in their last digits; they do not depend on
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
    """Return None where a CUDA kernel compiles, launches and returns the right numbers; otherwise why it cannot.

    The kernel runs once in each process that asks.
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
    """Return the numbers of the CUDA devices that can be used; empty where no kernel runs."""
    if not gpu_available():
        return []
    import cupy

    return list(range(cupy.cuda.runtime.getDeviceCount()))


def over_devices(
    work: Callable[[int, slice], Result], n: int, block: int, devices: Sequence[int], *, activate: bool = True
) -> list[Result]:
    """Return ``work(device, rows)`` for the blocks of ``0..n``, in their order; each device runs one at a time.

    Blocks are cut by size alone and their results come back in order, so sums that are added up from them do not depend
    on how many devices worked.

    Parameters
    ----------
    work : callable
        Called in a thread of its own for each device, with that device current.
    n, block : int
        Rows, and rows in a block.
    devices : sequence of int
        CUDA device numbers (`visible_devices`).
    activate : bool
        Make the device CuPy's current one around the call; False where ``work`` does so or needs none.

    Raises
    ------
    DeviceError
        The list of devices is empty.
    """
    if not devices:
        raise DeviceError("no GPU to spread the work over: run on the CPU or make a device visible")
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
