"""The machine: its GPU, and how fast it multiplies and copies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from cryopipe.kernels.devices import gpu_unavailable_reason
from cryopipe.selftest.row import Row, mover


def device_facts() -> list[str]:
    """Return lines about the GPU (name, memory, driver and CUDA versions), or the reason why there is none."""
    reason = gpu_unavailable_reason()
    if reason is not None:
        return [f"GPU: none can be used ({reason}); everything runs on the CPU"]
    import cupy

    driver, runtime = cupy.cuda.runtime.driverGetVersion(), cupy.cuda.runtime.runtimeGetVersion()
    lines = [f"CuPy {cupy.__version__}, CUDA runtime {_version(runtime)}, driver supports CUDA {_version(driver)}"]
    for index in range(cupy.cuda.runtime.getDeviceCount()):
        facts = cupy.cuda.runtime.getDeviceProperties(index)
        with cupy.cuda.Device(index) as device:
            free, total = device.mem_info
        lines.append(
            f"GPU {index}: {facts['name'].decode()}, {total / 2**30:.1f} GiB ({free / 2**30:.1f} free), "
            f"compute capability {facts['major']}.{facts['minor']}, {facts['multiProcessorCount']} multiprocessors"
        )
    return lines


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def measure_ceilings(device: str) -> Iterator[Row]:
    """Yield the speeds of a float32 matrix product and of a memory copy (read + write), best of five."""
    start = time.perf_counter()
    gflops = sgemm_gflops(device)
    yield Row("float32 matrix product", device, True, time.perf_counter() - start, f"{gflops:.0f} GFLOP/s", gflops)
    start = time.perf_counter()
    speed = copy_gbytes(device)
    yield Row("memory copy", device, True, time.perf_counter() - start, f"{speed:.1f} GB/s", speed)


def sgemm_gflops(device: str) -> float:
    """Return GFLOP/s of a float32 matrix product (2048 on a CPU, 8192 on a GPU; plain float32, no TF32)."""
    side = 2048 if device == "cpu" else 8192
    move = mover(device)
    a = move(np.random.default_rng(6).standard_normal((side, side), dtype=np.float32))
    return 2 * side**3 / best_seconds(lambda: a @ a, device) / 1e9


def copy_gbytes(device: str) -> float:
    """Return GB/s of a copy of 256 MB (CPU, one thread) or 4 GB (GPU), counting bytes read and written."""
    count = 2**26 if device == "cpu" else 2**30
    move = mover(device)
    source, target = move(np.zeros(1, np.float32)).repeat(count), move(np.zeros(1, np.float32)).repeat(count)

    def copy() -> None:
        target[...] = source

    return 2 * source.nbytes / best_seconds(copy, device) / 1e9


def best_seconds(call: Callable[[], object], device: str, repeat: int = 5) -> float:
    """Return the shortest wall time of ``repeat`` calls after one warm-up call. Times include waiting for the GPU."""
    if device == "gpu":
        import cupy

        wait: Callable[[], object] = cupy.cuda.runtime.deviceSynchronize
    else:
        wait = time.perf_counter
    times = []
    for _ in range(repeat + 1):
        wait()
        start = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - start)
    return min(times[1:])
