"""Images, stacks and volumes in MRC files.

Modes 0, 1, 2, 6, 12 and 101 are read as float32. float32 (mode 2), float16 (mode 12, on request) and integer types are
written. A file that exists is complete, because it is written under another name and renamed. RELION distinguishes stacks
and volumes by the suffix (``.mrcs``, ``.mrc``), other programs by the space group (0, 1). Both are set correctly.

mrcfile reads and makes the headers and writes the files (`mrc_header`, `mrc_write`). The pixels are read here, in a dozen
lines, for three reasons (``tests/io/test_mrc_library.py``). mrcfile has neither mode 101 nor unsigned bytes. It reads a file
as a whole. And if ``mrcfile.mmap`` is used for parts of a stack, what it has read counts as memory of the process, and the
kernel ends the process (SIGBUS) if the file becomes shorter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.io.mrc_header import PACKED_4_BIT, MrcInfo, read_header
from cryopipe.io.mrc_write import StackWriter, write_image, write_stack, write_volume

__all__ = [
    "MrcInfo",
    "StackWriter",
    "format_image_name",
    "image_size",
    "parse_image_name",
    "read_image",
    "read_sections",
    "read_stack",
    "read_volume",
    "write_image",
    "write_stack",
    "write_volume",
]

image_size = read_header


def read_image(path: str | Path) -> tuple[np.ndarray, float | None]:
    """Read a single image.

    Returns
    -------
    image : ndarray of float32
        [y, x]
    pixel_size_A : float or None
        Pixel size in the header, Å. None if it is not set.

    Raises
    ------
    InputError
        The file is missing or damaged, has more than one section, or has values that are not finite.
    """
    info = read_header(path)
    if info.shape[0] != 1:
        raise InputError(
            f"{path}: one image is expected, but there are {info.shape[0]} sections. Give a single image, not a movie or stack."
        )
    return _finite(read_sections(info, [0]), info, np.zeros(1, np.int64))[0], info.pixel_size_A


def read_volume(path: str | Path) -> tuple[np.ndarray, float | None]:
    """Read a volume [z, y, x] as float32, and its pixel size (Å, or None). Errors are those of `read_image`.

    The space group is not checked, since it is 0 in old files. Axes must be stored in the order x, y, z.
    """
    info = read_header(path)
    if info.shape[0] < 2:
        raise InputError(f"{path}: a volume is expected, but the file has only one section. Give a map.")
    return _finite(read_sections(info, range(info.shape[0])), info, np.arange(info.shape[0])), info.pixel_size_A


def read_stack(path: str | Path, indices: Sequence[int] | np.ndarray | None = None) -> tuple[np.ndarray, float | None]:
    """Read images of a stack.

    Parameters
    ----------
    path : path
        MRC stack.
    indices : sequence of int, optional
        Indices of the images to read, zero-based, in any order. All images by default.

    Returns
    -------
    images : ndarray of float32
        [n, y, x] in the order of ``indices``.
    pixel_size_A : float or None
        Pixel size in the header, Å. None if it is not set.

    Raises
    ------
    InputError
        As for `read_image`, or an index is outside the stack.
    """
    info = read_header(path)
    wanted = np.arange(info.shape[0]) if indices is None else np.asarray(indices, dtype=np.int64)
    if wanted.size and (wanted.min() < 0 or wanted.max() >= info.shape[0]):
        bad = int(wanted[(wanted < 0) | (wanted >= info.shape[0])][0])
        raise InputError(f"{path}: image {bad + 1} is asked for, but the stack has {info.shape[0]}.")
    return _finite(read_sections(info, wanted), info, wanted), info.pixel_size_A


def read_sections(info: MrcInfo, indices: Sequence[int] | np.ndarray, *, raw: bool = False) -> np.ndarray:
    """Read sections of a file whose header is known: [n, y, x] float32, or in the type of the file if ``raw``."""
    _, ny, nx = info.shape
    kind = info.dtype.newbyteorder("=") if raw else np.dtype(np.float32)
    images = np.empty((len(indices), ny, nx), dtype=kind)  # [n, y, x]
    as_stored = info.mode != PACKED_4_BIT and info.dtype == kind
    section = np.empty((ny, info.row_bytes), dtype=np.uint8)  # bytes of one section
    with info.path.open("rb") as stream:
        for image, index in zip(images, indices, strict=True):
            stream.seek(info.data_offset + int(index) * info.section_bytes)
            target: Any = image if as_stored else section
            if stream.readinto(target) != info.section_bytes:
                raise InputError(f"{info.path}: the file became shorter while it was read. Copy it again.")
            if info.mode == PACKED_4_BIT:
                # the first pixel is in the low half of a byte; an odd row ends with half a byte of padding
                image[:, 0::2] = section[:, : (nx + 1) // 2] & 15
                image[:, 1::2] = section[:, : nx // 2] >> 4
            elif not as_stored:
                image[...] = section.view(info.dtype)
    return images


def parse_image_name(name: str) -> tuple[int, Path]:
    """Split RELION's ``000001@stack.mrcs`` into zero-based index and path. Without ``@`` it is the first image.

    Raises
    ------
    InputError
        The text before the ``@`` is not a number from 1.
    """
    number, at, path = name.partition("@")
    if not at:
        return 0, Path(name)
    if not re.fullmatch(r"[0-9]+", number) or int(number) < 1 or not path:
        raise InputError(f"image name {name!r}: expected <number from 1>@<stack>, such as 000001@stack.mrcs.")
    return int(number) - 1, Path(path)


def format_image_name(index: int, path: str | Path) -> str:
    """Return RELION's name of image ``index`` (zero-based) of a stack, which counts from 1: ``000001@stack.mrcs``."""
    if index < 0:
        raise InputError(f"{path}: image index {index} is negative.")
    return f"{index + 1:06d}@{path}"


def _finite(images: np.ndarray, info: MrcInfo, sections: np.ndarray) -> np.ndarray:
    if info.dtype.kind == "f" and not np.isfinite(images).all():
        bad = np.argwhere(~np.isfinite(images))
        z, y, x = bad[0]
        raise InputError(
            f"{info.path}: {len(bad)} values are not finite, the first in section {sections[z] + 1}, row {y}, column {x}. "
            "Make the file again."
        )
    return images
