"""Read maps that belong together: one box, one pixel size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
            raise InputError(f"{path}: the map has the shape {volume.shape} and is not a cube. Crop or pad it.")
        if pixel_size_A is None:
            raise InputError(f"{path}: the header has no pixel size. Set it (relion_image_handler --angpix).")
        if volumes and volume.shape != volumes[0].shape:
            raise InputError(
                f"{path}: box {volume.shape[0]}, but {paths[0]} has {volumes[0].shape[0]}. Resize one of them."
            )
        if sizes and abs(pixel_size_A / sizes[0] - 1) > 1e-3:
            raise InputError(
                f"{path}: {pixel_size_A:g} Å per voxel, but {paths[0]} has {sizes[0]:g} Å. Correct the wrong header."
            )
        volumes.append(volume)
        sizes.append(pixel_size_A)
    return volumes, sizes[0]


def on_grid(
    volume: NDArray[np.float32], pixel_size_A: float, *, box: int, new_pixel_size_A: float, workers: int = 1
) -> NDArray[np.float32]:
    """Return a map resampled to another pixel size and box; its centre stays at index ``box // 2``.

    The map is padded with zeros to a length that is a whole number of new pixels (within 0.05 %), then resampled in
    Fourier space, then cropped or padded.

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
    workers : int
        Threads of the transforms.

    Raises
    ------
    InputError
        No length up to three times the box fits.
    """
    ratio = pixel_size_A / new_pixel_size_A
    length = volume.shape[0] + volume.shape[0] % 2
    if abs(ratio - 1) > 1e-4:
        while abs((new := 2 * round(length * ratio / 2)) / (length * ratio) - 1) > 5e-4:
            length += 2
            if length > 3 * volume.shape[0]:
                raise InputError(
                    f"maps of {pixel_size_A:g} and {new_pixel_size_A:g} Å per pixel have no common grid. Resample one of them."
                )
        volume = resample(centred_crop(volume, length), (new,) * 3, centred=True, workers=workers)
    return centred_crop(volume, box)


def centred_crop(volume: NDArray[np.float32], box: int) -> NDArray[np.float32]:
    """Return a cube cropped or padded with zeros to ``box``; the centre is index ``n // 2`` before and after."""
    old = volume.shape[0]
    result = np.zeros((box,) * 3, dtype=np.float32)
    start = box // 2 - old // 2
    into = slice(max(start, 0), min(start + old, box))
    out_of = slice(into.start - start, into.stop - start)
    result[into, into, into] = volume[out_of, out_of, out_of]
    return result
