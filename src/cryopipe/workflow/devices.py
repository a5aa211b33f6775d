"""Which device a job computes on, and one GPU a job where several jobs share a machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cryopipe.context import Device
from cryopipe.errors import DeviceError


def gpu_count() -> int:
    """Return the number of CUDA devices that CuPy sees; 0 without CuPy or without a driver."""
    try:
        import cupy
    except ImportError:
        return 0
    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError:
        return 0


def resolve_device(wanted: str, *, step: str, granted_gpus: int) -> Device:
    """Turn ``auto | cpu | gpu`` into the device of this job; ``gpu`` without a usable GPU is an error, never a quiet CPU run.

    ``granted_gpus`` is what the scheduler gave the job: 0 for steps that have no GPU path or under ``--resources gpu=0``.
    """
    if wanted == "cpu" or granted_gpus == 0:
        return "cpu"
    if gpu_count() > 0:
        return "gpu"
    if wanted == "gpu":
        raise DeviceError(
            f"{step}: run.device is gpu, but no CUDA device can be used here. Install cryopipe[gpu-cuda12] or [gpu-cuda13] and "
            "check `cryopipe doctor`, or set run.device: cpu."
        )
    return "cpu"


@contextlib.contextmanager
def gpu_lease(device: Device, folder: Path | None = None) -> Iterator[None]:
    """Hold one GPU for the life of the block by a file lock, and show the process that GPU alone.

    Snakemake counts GPUs but does not say which one a job got. A CUDA_VISIBLE_DEVICES that is already set (by SLURM, by a
    user) is respected and nothing is locked.
    """
    if device == "cpu" or os.environ.get("CUDA_VISIBLE_DEVICES", ""):
        yield
        return
    folder = folder or Path(tempfile.gettempdir())
    handles = [(i, (folder / f"cryopipe-gpu-{i}.lock").open("a")) for i in range(gpu_count())]
    try:
        while True:
            for index, handle in handles:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.environ["CUDA_VISIBLE_DEVICES"] = str(index)
                    yield
                    return
            time.sleep(0.5)
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        for _, handle in handles:
            handle.close()
