"""Rows of a movie table as entries that can be opened, and gain references of any format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryopipe.errors import InputError
from cryopipe.io.movies import Movie, open_movie
from cryopipe.io.mrc import read_image
from cryopipe.io.star import StarTable


@dataclass(frozen=True)
class MovieEntry:
    """One movie of a table with the facts of its optics group.

    Attributes
    ----------
    item : str
        Unique name, the file's stem.
    path : Path
        The movie.
    optics_group : int
        Number of the optics group in the table.
    pixel_size_A, voltage_kV : float
        Pixel size of the movie, acceleration voltage.
    eer_grouping, eer_upsampling : int
        How EER events become frames. Not used for other formats.
    dose_per_frame_e_A2, pre_exposure_e_A2 : float or None
        Exposure of a frame, and before the first frame, e/Å². None if the table does not state it.
    frame_shape : tuple of int or None
        Rows and columns (y, x) of the frames. None if the table does not state them.
    """

    item: str
    path: Path
    optics_group: int
    pixel_size_A: float
    voltage_kV: float
    eer_grouping: int = 40
    eer_upsampling: int = 1
    dose_per_frame_e_A2: float | None = None
    pre_exposure_e_A2: float | None = None
    frame_shape: tuple[int, int] | None = None

    def open(self) -> Movie:
        """Open the movie."""
        return open_movie(self.path, eer_grouping=self.eer_grouping, eer_upsampling=self.eer_upsampling)


def movie_entries(table: StarTable) -> dict[str, MovieEntry]:
    """Return ``{item: entry}`` of a movie table, in its order.

    Raises
    ------
    InputError
        A column is missing, or two movies have the same name.
    """
    rows = table.with_optics()
    for column in ("rlnMicrographMovieName", "rlnMicrographOriginalPixelSize", "rlnVoltage"):
        if column not in rows and len(rows):
            raise InputError(f"the movie table has no column {column}. Make the table with import_movies.")
    sized = {"rlnImageSizeY", "rlnImageSizeX"}.issubset(rows.columns)
    entries: dict[str, MovieEntry] = {}
    for row in rows.to_dict("records"):
        path = Path(row["rlnMicrographMovieName"])
        item = str(row.get("crpItem", path.stem))
        if item in entries:
            raise InputError(f"two movies are called {item}: {entries[item].path} and {path}. Rename one.")
        entries[item] = MovieEntry(
            item=item,
            path=path,
            optics_group=int(row["rlnOpticsGroup"]),
            pixel_size_A=float(row["rlnMicrographOriginalPixelSize"]),
            voltage_kV=float(row["rlnVoltage"]),
            eer_grouping=int(row.get("rlnEERGrouping", 40)),
            eer_upsampling=int(row.get("rlnEERUpsampling", 1)),
            dose_per_frame_e_A2=float(row.get("rlnMicrographDoseRate", 0.0)) or None,
            pre_exposure_e_A2=float(row["rlnMicrographPreExposure"]) if "rlnMicrographPreExposure" in row else None,
            frame_shape=(int(row["rlnImageSizeY"]), int(row["rlnImageSizeX"])) if sized else None,
        )
    return entries


def read_reference(path: Path) -> np.ndarray:
    """Read a gain reference (MRC, TIFF or ``.gain``) as float32 [y, x], rows in the order of the file."""
    if path.suffix.lower() in (".tif", ".tiff", ".gain"):
        with open_movie(path) as movie:
            return movie.read_frame(0).astype(np.float32)
    return read_image(path)[0]
