"""Rows of a micrograph table, and reading the image of a row with a check of its pixel size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.io.mrc import read_image
from cryopipe.io.star import StarTable

#: Largest relative difference of two pixel sizes of the same file.
PIXEL_TOLERANCE = 1e-3
#: Columns of the optics of a micrograph: voltage (kV), spherical aberration (mm), amplitude contrast.
MICROSCOPE = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
_NEEDED = ("crpItem", "rlnMicrographName", "rlnMicrographPixelSize")


@dataclass(frozen=True, eq=False)
class Micrograph:
    """An image with the facts of its row.

    Attributes
    ----------
    path : Path
        The file.
    image : ndarray ``[y, x]`` float32
        Pixels.
    pixel_size_A : float
        Å per pixel, from the table.
    """

    path: Path
    image: np.ndarray
    pixel_size_A: float


def micrograph_rows(table: StarTable, source: Path, *, columns: Sequence[str] = _NEEDED) -> dict[str, dict[str, Any]]:
    """Return ``{item: row}`` of a micrograph table, each row joined with the values of its optics group.

    Parameters
    ----------
    table : StarTable
        Micrographs.
    source : Path
        File of the table, for messages.
    columns : sequence of str
        Columns that every row must have.

    Raises
    ------
    InputError
        A column is missing, or two micrographs have the same name.
    """
    rows = table.with_optics()
    for column in columns:
        if column not in rows and len(rows):
            raise InputError(f"{source}: the table has no column {column}. Make the table with an earlier step.")
    found: dict[str, dict[str, Any]] = {}
    for row in rows.to_dict("records"):
        item = str(row["crpItem"])
        if item in found:
            raise InputError(f"{source}: two micrographs are called {item}. Rename one of them.")
        found[item] = {str(name): value for name, value in row.items()}
    return found


def micrograph_path(row: dict[str, Any], *, dose_weighted: bool) -> Path:
    """Return the file of a row: the plain sum, or the dose-weighted one if there is one."""
    weighted = row.get("crpMicrographNameDW") if dose_weighted else None
    return Path(str(weighted or row["rlnMicrographName"]))


def read_micrograph(row: dict[str, Any], *, dose_weighted: bool) -> Micrograph:
    """Read the image of a row.

    Parameters
    ----------
    row : dict
        Row from :func:`micrograph_rows`.
    dose_weighted : bool
        Dose-weighted sums are for picking and extraction. CTFs need the plain sum, whose rings reach a finer resolution.

    Raises
    ------
    InputError
        The file cannot be read, or its header and the table differ in the pixel size.
    """
    path = micrograph_path(row, dose_weighted=dose_weighted)
    image, header_A = read_image(path)
    pixel_size_A = float(row["rlnMicrographPixelSize"])
    check_pixel_size(path, header_A, pixel_size_A, "the table")
    return Micrograph(path, image, pixel_size_A)


def check_pixel_size(path: Path, header_A: float | None, stated_A: float | None, source: str) -> None:
    """Compare the pixel size in the header of a file with the stated one.

    Parameters
    ----------
    path : Path
        The file.
    header_A : float or None
        Pixel size in the header, Å. None means that it is not set. Exactly 1 Å means the same, because many programs write
        it if they do not know the pixel size.
    stated_A : float or None
        Stated pixel size, Å. None if there is none.
    source : str
        Where it is stated: "the table", "dataset.pixel_size_A".

    Raises
    ------
    InputError
        They differ by more than 0.1 %.
    """
    if header_A is None or stated_A is None or header_A == 1.0:
        return
    if not abs(header_A - stated_A) <= PIXEL_TOLERANCE * stated_A:
        raise InputError(
            f"{path}: the header has {header_A:.5g} Å per pixel, but {source} has {stated_A:.5g} Å. Correct "
            "dataset.pixel_size_A or the header, whichever is wrong."
        )
