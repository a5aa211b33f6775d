"""Read maps that must have the same box and pixel size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from cryopipe.errors import InputError
from cryopipe.imaging.fourier import resample
from cryopipe.io.mrc import read_volume


def read_maps(*paths: Path) -> tuple[list[NDArray[np.float32]], float]:
    """Return the maps ``[z, y, x]`` and their common pixel size in Å.

    Raises
    ------
    InputError
        A map is not a cube, its header has no pixel size, or two maps differ in box or (by more than 0.1 %) in pixel size.
    """
    volumes: list[NDArray[np.float32]] = []
    sizes: list[float] = []
    for path in paths:
        volume, pixel_size_A = read_volume(path)
        if len(set(volume.shape)) != 1:
            raise InputError(f"{path}: the map is not a cube: its shape is {volume.shape}. Crop or pad it.")
        if pixel_size_A is None:
            raise InputError(f"{path}: the header has no pixel size. Set it (relion_image_handler --angpix).")
        if volumes and volume.shape != volumes[0].shape:
            raise InputError(
                f"{path}: the box is {volume.shape[0]}, but that of {paths[0]} is {volumes[0].shape[0]}. Resize one of them."
            )
        if sizes and abs(pixel_size_A / sizes[0] - 1) > 1e-3:
            raise InputError(
                f"{path}: the header has {pixel_size_A:g} Å per voxel, but {paths[0]} has {sizes[0]:g} Å. Correct one header."
            )
        volumes.append(volume)
        sizes.append(pixel_size_A)
    return volumes, sizes[0]


def on_grid(
    volume: NDArray[np.float32], pixel_size_A: float, *, box: int, new_pixel_size_A: float, threads: int = 1
) -> NDArray[np.float32]:
    """Return a map resampled to another pixel size and box. Its centre is at index ``box // 2``.

    If a length of up to three times the box is a whole, even number of old and of new pixels (within 0.05 %), the map is
    padded with zeros to that length, resampled in Fourier space, and then cropped or padded. Two pixel sizes that differ by
    some per mille (0.7 and 0.70125 Å) have no such length. Then the Fourier series of the map is evaluated at the new pixels.
    This is exact for any ratio, but its time grows with the fourth power of the box.

    Parameters
    ----------
    volume : array float32 [z, y, x]
        Cube.
    pixel_size_A : float
        Å per pixel of the cube.
    box : int
        Side of the result in pixels.
    new_pixel_size_A : float
        Å per pixel of the result.
    threads : int
        CPU threads of the transforms.
    """
    ratio = pixel_size_A / new_pixel_size_A
    if abs(ratio - 1) <= 1e-4:
        return centred_crop(volume, box)
    first = volume.shape[0] + volume.shape[0] % 2
    for length in range(first, 3 * volume.shape[0] + 1, 2):
        new = 2 * round(length * ratio / 2)
        if abs(new / (length * ratio) - 1) <= 5e-4:
            volume = resample(centred_crop(volume, length), (new,) * 3, centred=True, threads=threads)
            return centred_crop(volume, box)
    return _fourier_series(volume, ratio, box)


def _fourier_series(volume: NDArray[np.float32], ratio: float, box: int) -> NDArray[np.float32]:
    """Evaluate the Fourier series of a cube at ``box`` pixels per axis that are 1 / ``ratio`` old pixels apart.

    Frequencies up to the smaller of the two Nyquist frequencies are kept. Pixels outside the cube are 0.
    """
    n = volume.shape[0]
    highest = int(np.ceil(0.5 * n * min(1.0, ratio))) - 1
    place = (np.arange(box) - box // 2) / ratio
    turn = np.pi / n * (place[:, None] - (np.arange(n) - n // 2))  # [new, old]
    sine = np.sin(turn)
    near = np.abs(sine) < 1e-9
    # Dirichlet's kernel: the sum of all kept waves
    kernel = np.where(near, 2 * highest + 1, np.sin((2 * highest + 1) * turn) / np.where(near, 1.0, sine)) / n
    kernel[(place < -(n // 2) - 0.5) | (place > n - n // 2 - 0.5)] = 0.0
    result = volume.astype(np.float64)
    # with one BLAS thread sums do not depend on the number of threads
    with threadpool_limits(1, user_api="blas"):
        for _ in range(3):
            result = np.tensordot(
                result, kernel, axes=(0, 1)
            )  # the new axis is last, so after three turns it is z, y, x
    return result.astype(np.float32)


def centred_crop(volume: NDArray[np.float32], box: int) -> NDArray[np.float32]:
    """Return a cube cropped or padded with zeros to ``box``. The centre is at index ``n // 2`` before and after."""
    old = volume.shape[0]
    result = np.zeros((box,) * 3, dtype=np.float32)
    start = box // 2 - old // 2
    into = slice(max(start, 0), min(start + old, box))
    out_of = slice(into.start - start, into.stop - start)
    result[into, into, into] = volume[out_of, out_of, out_of]
    return result
