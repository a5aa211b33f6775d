"""Write movies frame by frame, to TIFF or to an MRC stack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile

from cryopipe.errors import InputError
from cryopipe.io.atomic import atomic_path
from cryopipe.io.mrc_write import StackWriter


def write_movie(
    path: str | Path,
    frames: Iterable[np.ndarray],
    pixel_size_A: float,
    *,
    compression: Literal["lzw", "none"] = "lzw",
) -> int:
    """Write frames one by one to a TIFF or MRC stack. The file appears when it is complete.

    Parameters
    ----------
    path : path
        ``.tif``/``.tiff`` (uint8, uint16, float32; LZW by default, one strip of 64 rows) or ``.mrcs``/``.mrc``.
    frames : iterable of ndarray
        Frames [y, x], all with the same shape and type.
    pixel_size_A : float
        Å, for the header (TIFF: as resolution in pixels per centimetre).
    compression : {"lzw", "none"}
        Compression of TIFF.

    Returns
    -------
    int
        Number of frames.

    Raises
    ------
    InputError
        There are no frames, frames differ, the suffix is unknown, or the format cannot store the values (MRC: also values
        that are not finite).
    """
    path = Path(path)
    if not (np.isfinite(pixel_size_A) and pixel_size_A > 0):
        raise InputError(f"{path}: a pixel size of {pixel_size_A} Å cannot be written; it must be positive.")
    checked = _alike(frames, path)
    if path.suffix in (".tif", ".tiff"):
        return _write_tiff(path, checked, pixel_size_A, compression)
    if path.suffix in (".mrc", ".mrcs"):
        return _write_mrc(path, checked, pixel_size_A)
    raise InputError(
        f"{path}: a movie must be written as .tif, .tiff, .mrcs or .mrc, but this name has {path.suffix or 'no suffix'}."
    )


def _alike(frames: Iterable[np.ndarray], path: Path) -> Iterator[np.ndarray]:
    first: np.ndarray | None = None
    for number, frame in enumerate(frames, 1):
        if frame.ndim != 2:
            raise InputError(
                f"{path}: frame {number} has the shape {frame.shape}, but it must have two dimensions [y, x]."
            )
        first = frame if first is None else first
        if (frame.shape, frame.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"{path}: frame {number} is {frame.shape} {frame.dtype}, but frame 1 is {first.shape} {first.dtype}."
            )
        yield frame


def _write_tiff(path: Path, frames: Iterator[np.ndarray], pixel_size_A: float, compression: str) -> int:
    count = 0
    per_cm = 1e8 / pixel_size_A
    with atomic_path(path) as temporary:
        with tifffile.TiffWriter(temporary) as writer:
            for frame in frames:
                if frame.dtype.name not in ("uint8", "uint16", "float32"):
                    raise InputError(f"{path}: {frame.dtype} cannot be written as TIFF. Convert it to uint8 or uint16.")
                writer.write(
                    frame,
                    photometric="minisblack",
                    compression=None if compression == "none" else compression,
                    rowsperstrip=64,
                    resolution=(per_cm, per_cm),
                    resolutionunit="CENTIMETER",
                    metadata=None,
                    software=False,
                    contiguous=False,
                )
                count += 1
        if count == 0:
            raise InputError(f"{path}: there are no frames to write.")
    return count


def _write_mrc(path: Path, frames: Iterator[np.ndarray], pixel_size_A: float) -> int:
    with StackWriter(path, pixel_size_A, suffixes=(".mrcs", ".mrc")) as stack:
        for frame in frames:
            stack.append(frame)
        if stack.count == 0:
            raise InputError(f"{path}: there are no frames to write.")
    return stack.count
