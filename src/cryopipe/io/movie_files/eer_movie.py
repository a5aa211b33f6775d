"""Movies of electron events (EER): groups of camera readouts become frames of counts."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import tifffile

from cryopipe.errors import InputError
from cryopipe.io.movie_files.eer import EER_COMPRESSIONS, EER_LAYOUTS, render_events
from cryopipe.io.movie_files.movie import Movie
from cryopipe.io.movie_files.tiff_movie import check_extent, closing_on_error, open_tiff
from cryopipe.io.movie_files.tiff_pages import count_directories

_log = logging.getLogger(__name__)


class EerMovie(Movie):
    """A movie in an EER file. Damaged readouts are left out, as in RELION, and reported in the log."""

    def __init__(self, path: Path, grouping: int, upsampling: int) -> None:
        if grouping < 1 or upsampling not in (1, 2, 4):
            raise InputError(
                f"{path}: eer_grouping {grouping} must be at least 1, and eer_upsampling {upsampling} must be 1, 2 or 4."
            )
        count = count_directories(path)
        self._lock = threading.Lock()
        self._tiff = open_tiff(path)
        with closing_on_error(self._tiff, path):
            pages = [self._tiff.pages[i].aspage() for i in range(count)]
            # the file may also have a preview image; only event-coded directories are readouts
            self._readouts = [page for page in pages if int(page.compression) in EER_COMPRESSIONS]
            if not self._readouts:
                raise InputError(f"{path}: this EER file has no event-coded frame. Give the movie itself.")
            self._camera = (self._readouts[0].imagelength, self._readouts[0].imagewidth)
            for number, page in enumerate(self._readouts, 1):
                if (page.imagelength, page.imagewidth) != self._camera:
                    raise InputError(f"{path}: readout {number} differs in size from the first. Copy the file again.")
                check_extent(page, number, path)
            self._layout = _eer_layout(self._readouts[0], path)
            if upsampling > 2 ** min(self._layout[1:3]):
                raise InputError(
                    f"{path}: the sub-pixels of this file do not allow upsampling by {upsampling}. Lower eer_upsampling."
                )
            pixel_size_A = _eer_pixel_size_A(self._tiff, upsampling)
        frames = len(self._readouts) // grouping
        if frames == 0:
            raise InputError(
                f"{path}: {len(self._readouts)} readouts are too few for a frame of {grouping}. Lower eer_grouping."
            )
        self._grouping, self._upsampling = grouping, upsampling
        ny, nx = (side * upsampling for side in self._camera)
        # a camera pixel has at most one electron per readout
        dtype = np.dtype(np.uint8 if grouping <= 255 else np.uint16)
        super().__init__(path, (frames, ny, nx), dtype, pixel_size_A)

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()

    def _read(self, index: int) -> np.ndarray:
        frame = np.zeros(self.shape[1:], dtype=self.dtype)  # [y, x]
        start = index * self._grouping
        dropped = 0
        for page in self._readouts[start : start + self._grouping]:
            data = self._data(page)
            if not render_events(data, frame, self._camera, self._layout, self._upsampling):
                dropped += 1
        if dropped == self._grouping:
            raise InputError(
                f"{self.path}: all {dropped} readouts of frame {index + 1} are damaged. Copy the file again."
            )
        if dropped:
            _log.warning(
                "%s: %d of %d readouts of frame %d are damaged and left out",
                self.path,
                dropped,
                self._grouping,
                index + 1,
            )
        return frame

    def _data(self, page: tifffile.TiffPage) -> bytes:
        parts = []
        with self._lock:
            stream = self._tiff.filehandle
            for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
                stream.seek(offset)
                parts.append(stream.read(length))
        return b"".join(parts)


def _eer_layout(page: tifffile.TiffPage, path: Path) -> tuple[int, int, int, bool]:
    known = EER_LAYOUTS.get(int(page.compression))
    if known is not None:
        return known
    missing = [code for code in (65007, 65008, 65009) if code not in page.tags]
    if missing:
        raise InputError(f"{path}: tag {missing[0]} (bits of a run or of a sub-pixel) is missing. Copy the file again.")
    run_bits, x_bits, y_bits = (int(page.tags[code].value) for code in (65007, 65008, 65009))
    if not (1 <= run_bits <= 16 and 0 <= x_bits <= 4 and 0 <= y_bits <= 4):
        raise InputError(
            f"{path}: {run_bits} bits per run and {x_bits} + {y_bits} bits per sub-pixel are not supported. Convert the movie."
        )
    return run_bits, x_bits, y_bits, False


def _eer_pixel_size_A(tiff: tifffile.TiffFile, upsampling: int) -> float | None:
    metadata = tiff.eer_metadata or {}
    metres = metadata.get("sensorPixelSize.width")
    try:
        pixel_A = float(metres) * 1e10 / upsampling if metres is not None else 0.0
    except (TypeError, ValueError):
        return None
    # some files have the pixel pitch of the camera (14 µm) under this name
    return pixel_A if 0.05 < pixel_A < 100 else None
