"""Searches spread over several GPUs.

Blocks are cut by size alone, never by the number of devices, and their results come back in their order; so sums that
are added up from them do not depend on how many devices worked.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from cryopipe.errors import DeviceError
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.search.exhaustive.search import search_poses
from cryopipe.search.posterior import Posterior

Result = TypeVar("Result")


def over_devices(
    work: Callable[[int, slice], Result], n: int, block: int, devices: Sequence[int], *, activate: bool = True
) -> list[Result]:
    """Return ``work(device, rows)`` for the blocks of ``0..n``, in their order; each device runs one at a time.

    Parameters
    ----------
    work : callable
        Called in a thread of its own for each device, with that device current.
    n, block : int
        Rows, and rows a block. The blocks are the same for any number of devices.
    devices : sequence of int
        CUDA device numbers (`visible_devices`).
    activate : bool
        Make the device CuPy's current one around the call; False where ``work`` does so or needs none.

    Raises
    ------
    DeviceError
        No device.
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


def search_on_devices(
    images: ParticleSpectra,
    sigma2: np.ndarray,
    references: np.ndarray,
    shifts_px: np.ndarray,
    *,
    devices: Sequence[int] | None = None,
    block: int = 4096,
    **options: Any,
) -> Posterior:
    """Search with several GPUs: `search_poses` on blocks of images, references and their sums on every device.

    Parameters
    ----------
    images, sigma2, references, shifts_px
        As for `search_poses`, in host memory.
    devices : sequence of int, optional
        All visible ones by default.
    block : int
        Images a call. The result depends on it in its last digits, but not on the number of devices.
    **options
        Of `search_poses`; those with a row an image are cut into blocks.

    Returns
    -------
    Posterior
        With NumPy arrays, sums included; they are added block by block, in order.
    """
    by_image = ("base_shifts_px", "noise_group", "scale")
    given: dict[int, Any] = {}

    def work(device: int, rows: slice) -> Posterior:
        if device not in given:
            given[device] = to_device(references)
        mine = {k: v[rows] if k in by_image and v is not None else v for k, v in options.items()}
        prior = mine.get("shift_log_prior")
        if prior is not None and np.ndim(prior) == 2:
            mine["shift_log_prior"] = prior[rows]
        part = images.subset(rows)
        moved = replace(part, values=to_device(part.values), ctf=to_device(part.ctf))
        found = search_poses(moved, sigma2, given[device], shifts_px, **mine)
        return found if found.sums is None else replace(found, sums=found.sums.to_host())

    chosen = visible_devices() if devices is None else devices
    return Posterior.joined(over_devices(work, len(images), block, chosen))


def visible_devices() -> list[int]:
    """Return the numbers of the CUDA devices that CuPy sees; empty without CuPy or without a device."""
    try:
        import cupy

        return list(range(cupy.cuda.runtime.getDeviceCount()))
    except ImportError:
        return []
    except cupy.cuda.runtime.CUDARuntimeError:
        return []


def to_device(array: Any) -> Any:
    """Return the array on CuPy's current device."""
    import cupy

    return cupy.asarray(array)
