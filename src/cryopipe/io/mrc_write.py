"""Write images, stacks and volumes to MRC files, whole or image by image.

mrcfile 1.5.4 writes images and volumes. A stack that grows image by image gets its header from mrcfile, but is written
here, because mrcfile must know the number of images at the start (``new_mmap``) or keeps all of them in memory. Three
properties of mrcfile are changed (``tests/io/test_mrc_library.py``). It writes in place, so a killed job leaves a part of
a file under its final name. It writes the time of day into a label, so the same data do not give the same bytes. And it
computes mean and standard deviation in single precision.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import mrcfile
import numpy as np

from cryopipe.errors import InputError
from cryopipe.io.atomic import atomic_path
from cryopipe.io.mrc_header import HEADER_BYTES
from cryopipe.io.mrc_statistics import Statistics

#: Types that MRC2014 can store. mrcfile would widen uint8 to uint16, and also accept complex numbers.
_STORED = ("int8", "int16", "uint16", "float16", "float32")
_FLOAT16_MAX = float(np.finfo(np.float16).max)


def write_image(path: str | Path, image: np.ndarray, pixel_size_A: float, *, half: bool = False) -> None:
    """Write one image [y, x] to an ``.mrc`` file.

    Parameters
    ----------
    path : path
        File to make or replace.
    image : ndarray
        float32, float16, int8, int16 or uint16, but not float64.
    pixel_size_A : float
        Å, for the header.
    half : bool
        Store floats as float16 (mode 12), with half the space and 3 significant digits. RELION 3 cannot read it.

    Raises
    ------
    InputError
        Type, shape, suffix or pixel size are wrong, or values are not finite or too large for float16. No file is made.
    """
    _write(path, image, 2, (".mrc",), pixel_size_A, half=half)


def write_volume(path: str | Path, volume: np.ndarray, pixel_size_A: float, *, half: bool = False) -> None:
    """Write a volume to a file of space group 1.

    Parameters
    ----------
    path : path
        File to make or replace, ``.mrc`` or ``.map``.
    volume : ndarray ``[z, y, x]``
        Types as for `write_image`.
    pixel_size_A : float
        Å per pixel, for the header.
    half : bool
        Store floats as float16 (mode 12).

    Raises
    ------
    InputError
        As for `write_image`. No file is made.
    """
    _write(path, volume, 3, (".mrc", ".map"), pixel_size_A, half=half)


def write_stack(path: str | Path, images: np.ndarray, pixel_size_A: float, *, half: bool = False) -> None:
    """Write a stack of images to a file of space group 0.

    Parameters
    ----------
    path : path
        File to make or replace, ``.mrcs``.
    images : ndarray ``[n, y, x]``
        Types as for `write_image`.
    pixel_size_A : float
        Å per pixel, for the header.
    half : bool
        Store floats as float16 (mode 12).

    Raises
    ------
    InputError
        As for `write_image`. No file is made.
    """
    _check_shape(images, 3, Path(path))
    with StackWriter(path, pixel_size_A, half=half) as stack:
        stack.append(images)


class StackWriter:
    """Append images to a new stack, image by image. The complete file appears when the ``with`` block ends.

    After an exception inside the block, or without any image, no file is made.

    Parameters
    ----------
    path : path
        File to make or replace.
    pixel_size_A : float
        Å, for the header.
    half : bool
        Store as float16.
    suffixes : tuple of str
        Allowed endings of its name.
    """

    def __init__(
        self, path: str | Path, pixel_size_A: float, *, half: bool = False, suffixes: tuple[str, ...] = (".mrcs",)
    ) -> None:
        self.path = Path(path)
        _check_target(self.path, suffixes, pixel_size_A)
        self.pixel_size_A = pixel_size_A
        self.half = half
        self.count = 0
        self._statistics = Statistics()
        self._like: np.ndarray | None = None
        self._header: Any = None
        self._stream: BinaryIO | None = None

    def __enter__(self) -> StackWriter:
        self._context = atomic_path(self.path)
        self._temporary = self._context.__enter__()
        self._stream = self._temporary.open("rb+")
        return self

    def append(self, images: np.ndarray) -> int:
        """Append one image [y, x] or several [n, y, x]. Return the zero-based index of the first."""
        if self._stream is None:
            raise InputError(f"{self.path}: the stack is not open; use `with StackWriter(...) as stack`.")
        images = images[None] if images.ndim == 2 else images
        if len(images) == 0:
            return self.count
        _check_shape(images, 3, self.path)
        stored = _storable(images, self.path, half=self.half)  # [n, y, x]
        if self._like is None:
            self._like = stored[:1]
            with mrcfile.new(self._temporary, overwrite=True) as mrc:
                mrc.set_data(self._like)
                mrc.set_image_stack()
                self._header = mrc.header
            self._stream.seek(HEADER_BYTES)
        elif self._like.shape[1:] != stored.shape[1:] or self._like.dtype != stored.dtype:
            first = f"{self._like.shape[1:]} {self._like.dtype}"
            raise InputError(
                f"{self.path}: an image of {stored.shape[1:]} {stored.dtype} does not fit into a stack of {first}. "
                "Write it to another stack."
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
        if self._header is not None:
            self._header.nz = self.count
            _complete(self._header, self.pixel_size_A, self._statistics)
            stream.seek(0)
            stream.write(self._header.tobytes())
        stream.close()
        if error is None and self.count == 0:
            # MRC has no stack of zero images, so the temporary file is removed and no file is made.
            kind, error = _NoImagesError, _NoImagesError()
        self._context.__exit__(kind, error, trace)


class _NoImagesError(Exception):
    pass


def _write(
    path: str | Path, array: np.ndarray, ndim: int, suffixes: tuple[str, ...], pixel_size_A: float, *, half: bool
) -> None:
    path = Path(path)
    _check_target(path, suffixes, pixel_size_A)
    _check_shape(array, ndim, path)
    stored = _storable(array, path, half=half)
    statistics = Statistics()
    statistics.add(stored if ndim == 3 else stored[None])
    with atomic_path(path) as temporary, mrcfile.new(temporary, overwrite=True) as mrc:
        # mrcfile writes two dimensions as an image (space group 0) and three as a volume (space group 1)
        mrc.set_data(stored)
        _complete(mrc.header, pixel_size_A, statistics)


def _complete(header: Any, pixel_size_A: float, statistics: Statistics) -> None:
    """Set cell and statistics in a header of mrcfile, and remove its label with the time of day."""
    header.cella = tuple(np.float32(int(header[n]) * pixel_size_A) for n in ("mx", "my", "mz"))
    header.dmin, header.dmax, header.dmean, header.rms = statistics.values()
    header.label = b""
    header.nlabl = 0


def _check_target(path: Path, suffixes: tuple[str, ...], pixel_size_A: float) -> None:
    if path.suffix not in suffixes:
        raise InputError(f"{path}: the name must end in {' or '.join(suffixes)}, because other programs rely on it.")
    if not (np.isfinite(pixel_size_A) and pixel_size_A > 0):
        raise InputError(f"{path}: a pixel size of {pixel_size_A} Å cannot be written; it must be positive.")


def _check_shape(array: np.ndarray, ndim: int, path: Path) -> None:
    if array.ndim != ndim:
        raise InputError(f"{path}: the array must have {ndim} dimensions, but its shape is {array.shape}.")
    if array.size == 0:
        raise InputError(f"{path}: the array of shape {array.shape} has no pixels, and MRC files cannot be empty.")


def _storable(array: np.ndarray, path: Path, *, half: bool) -> np.ndarray:
    """Return ``array`` in the type of the file, little-endian. Refuse what MRC or RELION cannot store."""
    if array.dtype.name not in _STORED:
        raise InputError(
            f"{path}: {array.dtype} cannot be stored in MRC. Convert it to float32 (or int16, uint16) first."
        )
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InputError(
                f"{path}: {np.count_nonzero(~np.isfinite(array))} values are not finite, so nothing is written."
            )
        if half:
            largest = float(np.abs(array).max(initial=0))
            if largest > _FLOAT16_MAX:
                raise InputError(
                    f"{path}: the value {largest:g} is too large for float16 (65504). Scale it or write float32."
                )
            array = array.astype(np.float16)
    elif half:
        raise InputError(f"{path}: only floats can be stored as float16, not {array.dtype}. Write it without float16.")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)
