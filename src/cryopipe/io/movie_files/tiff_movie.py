"""Movies in TIFF files, compressed or not, with one directory per frame."""

from __future__ import annotations

import contextlib
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from cryopipe.errors import InputError
from cryopipe.io.movie_files.movie import Movie
from cryopipe.io.movie_files.tiff_pages import count_directories

#: Errors that tifffile and its codecs raise on damaged data (those of imagecodecs are RuntimeErrors).
DECODE_ERRORS = (tifffile.TiffFileError, RuntimeError, ValueError, IndexError, KeyError, struct.error, OSError)
_TYPES = ("uint8", "int8", "uint16", "int16", "float32", "float16")


class TiffMovie(Movie):
    """A movie in a TIFF file, with rows in the order of the file."""

    def __init__(self, path: Path) -> None:
        count = count_directories(path)
        self._lock = threading.RLock()
        self._tiff = open_tiff(path)
        with closing_on_error(self._tiff, path):
            pages = [self._tiff.pages[i] for i in range(count)]
            first = pages[0].aspage()
            self._pages = pages
            if first.samplesperpixel != 1 or len(first.shape) != 2 or first.dtype is None:
                raise InputError(f"{path}: frames of shape {first.shape} are not grey images. Convert them.")
            if np.dtype(first.dtype).name not in _TYPES:
                raise InputError(f"{path}: pixels of type {first.dtype} are not supported. Convert them to uint16.")
            for number, page in enumerate(pages, 1):
                if page.shape != first.shape or page.dtype != first.dtype:
                    raise InputError(
                        f"{path}: frame {number} is {page.shape} {page.dtype}, but frame 1 is {first.shape} {first.dtype}. "
                        "Write the movie again with frames of one size and type."
                    )
                check_extent(page, number, path)
        super().__init__(path, (count, *first.shape), np.dtype(first.dtype), _tiff_pixel_size_A(first))

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()

    def _read(self, index: int) -> np.ndarray:
        try:
            frame = self._pages[index].asarray(lock=self._lock, maxworkers=1)
        except DECODE_ERRORS as error:
            raise InputError(
                f"{self.path}: frame {index + 1} cannot be decoded ({error}). Copy the file again."
            ) from error
        return np.ascontiguousarray(frame, dtype=self.dtype)


def open_tiff(path: Path) -> tifffile.TiffFile:
    """Open a TIFF file. A damaged file gives an `InputError`."""
    try:
        return tifffile.TiffFile(path)
    except DECODE_ERRORS as error:
        raise InputError(f"{path}: cannot be read as TIFF ({error}). Copy the file again.") from error


@contextlib.contextmanager
def closing_on_error(tiff: tifffile.TiffFile, path: Path) -> Iterator[None]:
    """Close ``tiff`` if the block fails, and turn errors of tifffile into an `InputError`."""
    try:
        yield
    except InputError:
        tiff.close()
        raise
    except DECODE_ERRORS as error:
        tiff.close()
        raise InputError(f"{path}: its directories cannot be read ({error}). Copy the file again.") from error


def check_extent(page: tifffile.TiffPage | tifffile.TiffFrame, number: int, path: Path) -> None:
    """Refuse a frame whose data extend beyond the end of the file."""
    size = page.parent.filehandle.size
    ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or max(ends) > size:
        raise InputError(
            f"{path}: the file is cut off: the data of frame {number} end at byte {max(ends, default=0)}, but the file has "
            f"{size} bytes. Copy it again."
        )


def _tiff_pixel_size_A(page: tifffile.TiffPage) -> float | None:
    """Return the pixel size (Å) from a resolution in pixels per centimetre, or None for any other (a printer's)."""
    if (
        "XResolution" not in page.tags
        or "ResolutionUnit" not in page.tags
        or int(page.tags["ResolutionUnit"].value) != 3
    ):
        return None
    numerator, denominator = page.tags["XResolution"].value
    if numerator <= 0 or denominator <= 0:
        return None
    pixel_A = 1e8 * float(denominator) / float(numerator)  # 1 cm = 10^8 Å
    return pixel_A if 0.05 < pixel_A < 100 else None
