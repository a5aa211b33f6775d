"""Movies as a stream of frames: MRC stacks, TIFF and EER. Only the requested frame is in memory.

Frames have the order and orientation of the file. This is also so for TIFF, although RELION, IMOD and MotionCor2 flip its rows
on reading. Nothing needs to be flipped here, because the orientation of a gain reference is found by measurement.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cryopipe.errors import InputError
from cryopipe.io.movie_files.eer_movie import EerMovie
from cryopipe.io.movie_files.movie import Movie
from cryopipe.io.movie_files.tiff_movie import TiffMovie
from cryopipe.io.movie_files.write import write_movie
from cryopipe.io.mrc import read_sections
from cryopipe.io.mrc_header import read_header

__all__ = ["MOVIE_SUFFIXES", "Movie", "open_movie", "write_movie"]

_MRC_SUFFIXES = (".mrc", ".mrcs", ".st")
_TIFF_SUFFIXES = (".tif", ".tiff", ".gain")
_EER_SUFFIXES = (".eer",)
MOVIE_SUFFIXES = (*_MRC_SUFFIXES, *_TIFF_SUFFIXES, *_EER_SUFFIXES)


def open_movie(path: str | Path, *, eer_grouping: int = 40, eer_upsampling: int = 1) -> Movie:
    """Open a movie of any supported format. The suffix decides which.

    Parameters
    ----------
    path : path
        ``.mrc .mrcs .st``, ``.tif .tiff .gain`` or ``.eer``.
    eer_grouping : int
        Number of camera readouts in one frame of an EER movie. An incomplete last group is left out, as in RELION.
    eer_upsampling : {1, 2, 4}
        Pixels of an EER frame along one camera pixel.

    Raises
    ------
    InputError
        The file is missing, empty, cut off or of an unknown format, or its frames differ in size or type.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in _MRC_SUFFIXES:
        return _MrcMovie(path)
    if suffix in _TIFF_SUFFIXES:
        return TiffMovie(path)
    if suffix in _EER_SUFFIXES:
        return EerMovie(path, eer_grouping, eer_upsampling)
    raise InputError(
        f"{path}: {suffix or 'no suffix'} is not a movie format. Convert the file to one of {' '.join(MOVIE_SUFFIXES)}."
    )


class _MrcMovie(Movie):
    def __init__(self, path: Path) -> None:
        self._info = read_header(path)
        super().__init__(path, self._info.shape, self._info.dtype.newbyteorder("="), self._info.pixel_size_A)

    def close(self) -> None:
        """Nothing is open between two frames, so that threads do not disturb each other."""

    def _read(self, index: int) -> np.ndarray:
        return read_sections(self._info, [index], raw=True)[0]
