"""The device on which a job computes. Where several jobs share a machine, each gets a GPU of its own."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cryopipe.context import Device
from cryopipe.errors import DeviceError

#: Environment variable with the number of usable GPUs of this machine, for the jobs that a run starts on it.
KNOWN_VARIABLE = "CRYOPIPE_GPUS"
_COUNT = "from cryopipe.kernels.devices import visible_devices; print(len(visible_devices()))"


def gpu_count() -> int:
    """Return the number of CUDA devices of this machine on which a kernel runs; 0 without CuPy or without a driver.

    A separate process tests the GPUs, so that neither the scheduler nor a job keeps memory on the GPU of another job. The
    number is kept in the environment, so jobs that a run starts on the same machine do not test again.
    """
    if importlib.util.find_spec("cupy") is None:
        return 0
    here = f"{platform.node()} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}"
    known: dict[str, int] = json.loads(os.environ.get(KNOWN_VARIABLE, "{}"))
    if here not in known:
        asked = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True, check=False)
        known[here] = int(asked.stdout.split()[-1]) if asked.returncode == 0 else 0
        os.environ[KNOWN_VARIABLE] = json.dumps(known)
    return known[here]


def resolve_device(wanted: str, *, step: str, granted_gpus: int) -> Device:
    """Turn ``auto | cpu | gpu`` into the device of this job. ``gpu`` without a usable GPU is an error, not a run on the CPU.

    ``granted_gpus`` is what the scheduler gave the job. It is 0 for steps without a GPU path and with ``--resources gpu=0``.
    """
    if wanted == "cpu" or granted_gpus == 0:
        return "cpu"
    if gpu_count() > 0:
        return "gpu"
    if wanted == "gpu":
        raise DeviceError(
            f"{step}: run.device is gpu, but no CUDA device can be used here. Install cryopipe[gpu-cuda12] or [gpu-cuda13] and "
            "run `cryopipe doctor`, or set run.device: cpu."
        )
    return "cpu"


@contextlib.contextmanager
def gpu_lease(device: Device, count: int = 1, folder: Path | None = None) -> Iterator[tuple[int, ...]]:
    """Lock ``count`` GPUs by file locks until the block ends. Yield their numbers and make the first one current.

    Snakemake counts GPUs but does not tell a job which ones it got. If CUDA_VISIBLE_DEVICES is set (by SLURM, by a user),
    nothing is locked, and the job may use all GPUs that it lists. The variable cannot be set here, because CUDA reads it
    only once, when the process first asks for its devices.

    Raises
    ------
    DeviceError
        The machine has fewer GPUs than the job was given.
    """
    if device == "cpu":
        yield ()
        return
    present = gpu_count()
    if os.environ.get("CUDA_VISIBLE_DEVICES", ""):
        yield tuple(range(present))
        return
    if count > present:
        raise DeviceError(
            f"the job was given {count} GPUs, but this machine has {present}. Give it fewer (--set-resources <step>:gpu=1)."
        )
    folder = folder or Path(tempfile.gettempdir())
    while True:
        with contextlib.ExitStack() as held:
            # all or none: jobs that each hold some of the GPUs would wait for one another
            found: list[int] = []
            for index in range(present):
                if len(found) < count and _locked(held, folder / f"cryopipe-gpu-{index}.lock"):
                    found.append(index)
            if len(found) == count:
                import cupy

                with cupy.cuda.Device(found[0]):
                    yield tuple(found)
                return
        time.sleep(0.5)


def _locked(held: contextlib.ExitStack, path: Path) -> bool:
    """Lock a file until ``held`` ends; return False if another process has locked it."""
    handle = held.enter_context(path.open("a"))
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
