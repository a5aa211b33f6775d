"""The memory that a reconstruction will need, known before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from cryopipe.errors import DeviceError
from cryopipe.projection.half_cube import cube_shape

_MEMINFO = Path("/proc/meminfo")
_GPU_WORKING_BYTES = 8 * (64 << 20)
"""Memory of a GPU while it solves, in addition to the arrays: eight times what it transforms at a time."""


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes of the parts of one reconstruction (one half set), without the images, which belong to the caller.

    Attributes
    ----------
    accumulators : int
        Numerator and weight: 12 (2R+1)² (R+1).
    batch : int
        Prepared images: 12 K each.
    rotation : int
        The second pair of cubes if volumes are rotated for symmetry, otherwise 0.
    solution : int
        Half-transformed columns and the map, while solving.
    """

    accumulators: int
    batch: int
    rotation: int
    solution: int

    @property
    def peak(self) -> int:
        """Largest memory at a time, since batch, rotation and solution come one after the other."""
        return self.accumulators + max(self.batch, self.rotation, self.solution)


def memory_need(
    box: int, radius: int, *, padding: int = 2, images_per_batch: int = 0, interpolated: bool = False
) -> MemoryNeed:
    """Return the memory of a reconstruction.

    Parameters
    ----------
    box, radius, padding : int
        As for `cryopipe.reconstruction.reconstruct.Reconstruction.empty`.
    images_per_batch : int
        Number of images prepared at a time.
    interpolated : bool
        Whether volumes are rotated for symmetry (``SymmetryPlan.rotates_volumes``).
    """
    depth, height, width = cube_shape(radius, padding)
    accumulators = 12 * depth * height * width
    n_pixels = math.ceil(0.5 * math.pi * (radius + 0.5) ** 2)
    solution = 8 * box * height * width + 4 * box**3
    return MemoryNeed(accumulators, 12 * n_pixels * images_per_batch, accumulators if interpolated else 0, solution)


def check_memory(
    box: int, radius: int, *, padding: int, interpolated: bool, gpu: bool, free_bytes: int | None = None
) -> MemoryNeed:
    """Return the memory of a reconstruction, after checking that it is free.

    Parameters
    ----------
    box, radius, padding, interpolated
        As for `memory_need`.
    gpu : bool
        Check the memory of the GPU, not of the host.
    free_bytes : int, optional
        Used instead of what the machine reports.

    Raises
    ------
    DeviceError
        Less is free. The message states the need, the free memory and the largest radius that fits.
    """
    need = memory_need(box, radius, padding=padding, interpolated=interpolated)
    working = _GPU_WORKING_BYTES if gpu else 0
    free = (free_gpu_memory() if gpu else free_host_memory()) if free_bytes is None else free_bytes
    if free is not None and need.peak + working > free:
        fitting = [
            r
            for r in range(1, radius)
            if memory_need(box, r, padding=padding, interpolated=interpolated).peak + working <= free
        ]
        advice = (
            f"The largest radius that fits is {fitting[-1]} (of box {box}). Crop the images to a smaller box"
            if fitting
            else "Crop the images to a smaller box"
        )
        needed = (need.peak + working) / 1e9
        raise DeviceError(
            f"a reconstruction of box {box}, radius {radius}, padding {padding} needs {needed:.2f} GB, but {free / 1e9:.2f} GB "
            f"of {'GPU' if gpu else 'host'} memory are free. {advice}, or use a larger machine."
        )
    return need


def images_that_fit(radius: int, *, wanted: int, gpu: bool, free_bytes: int | None = None) -> int:
    """Return how many images, at most ``wanted`` and at least 1, can be prepared at a time in the free memory.

    Parameters
    ----------
    radius : int
        Radius of the images.
    wanted : int
    gpu : bool
        Check the memory of the GPU, not of the host.
    free_bytes : int, optional
        Used instead of what the machine reports.

    Raises
    ------
    DeviceError
        Not a single image fits.
    """
    each = 12 * math.ceil(0.5 * math.pi * (radius + 0.5) ** 2)
    free = (free_gpu_memory() if gpu else free_host_memory()) if free_bytes is None else free_bytes
    if free is None:
        return wanted
    if free < each:
        raise DeviceError(
            f"{free / 1e6:.2f} MB of {'GPU' if gpu else 'host'} memory are free, but an image of radius {radius} needs "
            f"{each / 1e6:.2f} MB in addition to the accumulators. Use a smaller radius or a device with more memory."
        )
    return int(min(wanted, free // each))


def free_host_memory() -> int | None:
    """Return the bytes that the kernel can give without swapping, or None on systems other than Linux."""
    if not _MEMINFO.exists():
        return None
    for line in _MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None


def free_gpu_memory() -> int:
    """Return the free bytes of CuPy's current device, including blocks that CuPy keeps for reuse."""
    import cupy

    free, _ = cupy.cuda.runtime.memGetInfo()
    return int(free + cupy.get_default_memory_pool().free_bytes())
