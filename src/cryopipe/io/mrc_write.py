"""Write images, stacks and volumes to MRC files, whole or image by image."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from cryopipe.errors import InputError
from cryopipe.io.atomic import atomic_path
from cryopipe.io.mrc_header import HEADER_BYTES, make_header, mode_of
from cryopipe.io.mrc_statistics import Statistics

_FLOAT16_MAX = float(np.finfo(np.float16).max)


def write_image(path: str | Path, image: np.ndarray, pixel_size_A: float, *, half: bool = False) -> None:
    """Write one image [y, x] to an ``.mrc`` file.

    Parameters
    ----------
    path : path
        File to make or replace.
    image : ndarray
        float32, float16, int8, int16 or uint16; never float64.
    pixel_size_A : float
        Å, for the header.
    half : bool
        Store floats as float16 (mode 12): half the space, 3 significant digits. RELION 3 cannot read it.

    Raises
    ------
    InputError
        Wrong type, shape, suffix, pixel size, or values that are not finite or too large for float16. No file is made.
    """
    _write(path, image, 2, (".mrc",), pixel_size_A, half=half, volume=False)


def write_volume(path: str | Path, volume: np.ndarray, pixel_size_A: float, *, half: bool = False) -> None:
    """Write a volume [z, y, x] to an ``.mrc`` file (space group 1); parameters and errors as `write_image`."""
    _write(path, volume, 3, (".mrc", ".map"), pixel_size_A, half=half, volume=True)


def write_stack(path: str | Path, images: np.ndarray, pixel_size_A: float, *, half: bool = False) -> None:
    """Write a stack [n, y, x] to an ``.mrcs`` file (space group 0); parameters and errors as `write_image`."""
    _write(path, images, 3, (".mrcs",), pixel_size_A, half=half, volume=False)


class StackWriter:
    """Append images to a new stack, image by image; the file appears complete when the ``with`` block ends.

    After an exception inside the block, and without any image, there is no file.

    Parameters
    ----------
    path : path
        ``.mrcs`` file to make or replace.
    pixel_size_A : float
        Å, for the header.
    half : bool
        Store as float16.
    """

    def __init__(self, path: str | Path, pixel_size_A: float, *, half: bool = False) -> None:
        self.path = Path(path)
        _check_target(self.path, (".mrcs",), pixel_size_A)
        self.pixel_size_A = pixel_size_A
        self.half = half
        self.count = 0
        self._shape: tuple[int, int] | None = None
        self._dtype: np.dtype | None = None
        self._statistics = Statistics()
        self._stream: BinaryIO | None = None

    def __enter__(self) -> StackWriter:
        self._context = atomic_path(self.path)
        self._temporary = self._context.__enter__()
        self._stream = self._temporary.open("wb")
        self._stream.write(bytes(HEADER_BYTES))
        return self

    def append(self, images: np.ndarray) -> int:
        """Append one image [y, x] or several [n, y, x]; return the zero-based index of the first."""
        if self._stream is None:
            raise InputError(f"{self.path}: the stack is not open; use `with StackWriter(...) as stack`.")
        images = images[None] if images.ndim == 2 else images
        stored = _storable(images, 3, self.path, half=self.half)  # [n, y, x]
        if self._shape is None:
            self._shape, self._dtype = (stored.shape[1], stored.shape[2]), stored.dtype
        elif self._shape != stored.shape[1:] or self._dtype != stored.dtype:
            raise InputError(
                f"{self.path}: image of {stored.shape[1:]} {stored.dtype} in a stack of {self._shape} {self._dtype}."
            )
        self._statistics.add(stored)
        self._stream.write(np.ascontiguousarray(stored).data)
        self.count += len(stored)
        return self.count - len(stored)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        stream.seek(0)
        if self._shape is not None and self._dtype is not None:
            shape = (self.count, *self._shape)
            stream.write(_header(shape, self._dtype, self.pixel_size_A, volume=False, statistics=self._statistics))
        stream.close()
        if error is None and self.count == 0:
            # MRC has no stack of zero images: the temporary file goes and no file comes.
            kind, error = _NoImagesError, _NoImagesError()
        self._context.__exit__(kind, error, trace)


class _NoImagesError(Exception):
    pass


def _header(
    shape: tuple[int, int, int], dtype: np.dtype, pixel_size_A: float, *, volume: bool, statistics: Statistics
) -> bytes:
    mode = mode_of(dtype)
    if mode is None:
        raise InputError(f"no MRC mode stores {dtype}.")
    return make_header(shape, mode, pixel_size_A, volume=volume, statistics=statistics.values())


def _write(
    path: str | Path,
    array: np.ndarray,
    ndim: int,
    suffixes: tuple[str, ...],
    pixel_size_A: float,
    *,
    half: bool,
    volume: bool,
) -> None:
    path = Path(path)
    _check_target(path, suffixes, pixel_size_A)
    stored = _storable(array, ndim, path, half=half)
    if stored.size == 0:
        raise InputError(f"{path}: an array of shape {stored.shape} has no pixels, and MRC has no empty files.")
    stack = stored[None] if ndim == 2 else stored
    statistics = Statistics()
    statistics.add(stack)
    shape = (stack.shape[0], stack.shape[1], stack.shape[2])
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(_header(shape, stored.dtype, pixel_size_A, volume=volume, statistics=statistics))
        stream.write(np.ascontiguousarray(stack).data)


def _check_target(path: Path, suffixes: tuple[str, ...], pixel_size_A: float) -> None:
    if path.suffix not in suffixes:
        raise InputError(f"{path}: the name must end in {' or '.join(suffixes)}; other programs go by it.")
    if not (np.isfinite(pixel_size_A) and pixel_size_A > 0):
        raise InputError(f"{path}: a pixel size of {pixel_size_A} Å cannot be written; it must be positive.")


def _storable(array: np.ndarray, ndim: int, path: Path, *, half: bool) -> np.ndarray:
    """Return ``array`` in the type that goes to the file, little-endian; refuse what MRC or RELION cannot hold."""
    if array.ndim != ndim:
        raise InputError(f"{path}: an array of {ndim} dimensions is expected, not of shape {array.shape}.")
    if mode_of(array.dtype) is None:
        raise InputError(
            f"{path}: {array.dtype} cannot be stored in MRC; convert it to float32 (or int16, uint16) first."
        )
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InputError(
                f"{path}: {np.count_nonzero(~np.isfinite(array))} values are not finite; nothing is written."
            )
        if half:
            largest = float(np.abs(array).max(initial=0))
            if largest > _FLOAT16_MAX:
                raise InputError(
                    f"{path}: the value {largest:g} is too large for float16 (65504). Scale it or write float32."
                )
            array = array.astype(np.float16)
    elif half:
        raise InputError(f"{path}: float16 is for floats, not for {array.dtype}.")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)
