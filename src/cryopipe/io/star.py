"""Tables of movies, micrographs, coordinates and particles: rows and their optics groups.

STAR files of all versions from RELION 3.0 on are read. Those of 3.0 have optics in every row, the pixel size from
`rlnDetectorPixelSize` and `rlnMagnification`, and origins in pixels. Those of 3.1, 4 and 5 have a block ``data_optics`` and
origins in Å. In memory and in files that are written there is only the later layout: `rlnOriginXAngst` in Å,
`rlnOpticsGroup` from 1, zero-based coordinates in pixels of the aligned micrograph. Paths in a table are relative to the
working directory of the run.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import pandas as pd

from cryopipe.errors import InputError
from cryopipe.io.atomic import atomic_write
from cryopipe.io.star_blocks import STAR_VERSIONS, read_blocks, write_blocks
from cryopipe.io.star_columns import cast_column, column_type
from cryopipe.io.star_optics import merge_optics, optics_from_rows

__all__ = [
    "STAR_VERSIONS",
    "RejectionRow",
    "StarTable",
    "cast_column",
    "column_type",
    "concatenate",
    "make_optics",
    "optics_of",
    "read_blocks",
    "read_rejections",
    "read_table",
    "write_blocks",
    "write_rejections",
    "write_table",
]

Kind = Literal["movies", "micrographs", "coordinates", "particles"]
_KINDS: tuple[Kind, ...] = ("movies", "micrographs", "coordinates", "particles")
#: Block names that other programs and older versions use for single tables.
_ALIASES = ("", "images")


class RejectionLike(Protocol):
    """What a line of a rejection list needs; `cryopipe.items.Rejection` has it."""

    @property
    def item(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def reason(self) -> str: ...


class RejectionRow(NamedTuple):
    """One line of a rejection list."""

    item: str
    kind: str
    reason: str


@dataclass(frozen=True)
class StarTable:
    """Rows of one kind with their optics groups.

    Attributes
    ----------
    kind : {"movies", "micrographs", "coordinates", "particles"}
        What a row is.
    optics : DataFrame
        One row per optics group, `rlnOpticsGroup` from 1. It may be empty for coordinates and for empty tables.
    rows : DataFrame
        One row per item, with `rlnOpticsGroup` unless ``optics`` is empty. Index 0..n-1.
    """

    kind: Kind
    optics: pd.DataFrame
    rows: pd.DataFrame

    def __len__(self) -> int:
        return len(self.rows)

    def with_optics(self) -> pd.DataFrame:
        """Return the rows joined with the values of their optics group, in the order and with the index of ``rows``."""
        own = self.rows.drop(columns=[c for c in self.optics.columns if c in self.rows and c != "rlnOpticsGroup"])
        return pd.concat([own, optics_of(self).drop(columns="rlnOpticsGroup", errors="ignore")], axis=1)

    def with_rows(self, rows: pd.DataFrame, *, kind: Kind | None = None) -> StarTable:
        """Return a table with the same optics and other ``rows`` (renumbered from 0), of another ``kind`` if given."""
        return StarTable(kind or self.kind, self.optics, rows.reset_index(drop=True))

    def single(self, column: str) -> float:
        """Return the value of ``column`` (such as a pixel size) if it is the same in all optics groups within 0.1 %.

        Raises
        ------
        InputError
            The column is missing, the table has no optics group, or the groups differ.
        """
        if column not in self.optics or self.optics.empty:
            raise InputError(
                f"the optics table of these {self.kind} lacks {column}. Make the table with an earlier step."
            )
        values = self.optics[column].to_numpy(dtype=np.float64)
        if not np.allclose(values, values[0], rtol=1e-3, atol=0):
            raise InputError(
                f"the optics groups of these {self.kind} differ in {column}: {', '.join(map(str, values))}. "
                "Process each group in a run of its own."
            )
        return float(values[0])


def optics_of(table: StarTable) -> pd.DataFrame:
    """Return for every row the values of its optics group (same index as ``table.rows``).

    Raises
    ------
    InputError
        A row has no optics group, or one that the optics table lacks.
    """
    if table.optics.empty:
        return pd.DataFrame(index=table.rows.index)
    if "rlnOpticsGroup" not in table.rows:
        raise InputError(
            f"these {table.kind} have an optics table, but no column rlnOpticsGroup. Add the column, or make the table again."
        )
    indexed = table.optics.set_index("rlnOpticsGroup", drop=False)
    if indexed.index.has_duplicates:
        raise InputError(f"an optics group number occurs twice: {list(indexed.index)}. Renumber the optics groups.")
    groups = table.rows["rlnOpticsGroup"]
    unknown = sorted(set(groups) - set(indexed.index))
    if unknown:
        raise InputError(
            f"rows refer to optics group {unknown[0]}, but the optics table has only {list(indexed.index)}. Add the group, "
            "or correct rlnOpticsGroup."
        )
    return indexed.loc[groups].set_axis(table.rows.index, axis=0)


def make_optics(
    *,
    voltage_kV: float,
    cs_mm: float,
    amplitude_contrast: float,
    movie_pixel_size_A: float | None = None,
    micrograph_pixel_size_A: float | None = None,
    image_pixel_size_A: float | None = None,
    image_size: int | None = None,
    name: str = "opticsGroup1",
) -> pd.DataFrame:
    """Return an optics table with one group. Pixel sizes that are not given are left out.

    Parameters
    ----------
    voltage_kV : float
        Acceleration voltage, kV.
    cs_mm : float
        Spherical aberration, mm.
    amplitude_contrast : float
        Fraction of amplitude contrast.
    movie_pixel_size_A, micrograph_pixel_size_A, image_pixel_size_A : float, optional
        Å per pixel of movies, micrographs and particle images.
    image_size : int, optional
        Side of the particle images, px.
    name : str
        Name of the optics group.
    """
    values: dict[str, object] = {
        "rlnOpticsGroupName": name,
        "rlnOpticsGroup": 1,
        "rlnVoltage": float(voltage_kV),
        "rlnSphericalAberration": float(cs_mm),
        "rlnAmplitudeContrast": float(amplitude_contrast),
    }
    sizes = {
        "rlnMicrographOriginalPixelSize": movie_pixel_size_A,
        "rlnMicrographPixelSize": micrograph_pixel_size_A,
        "rlnImagePixelSize": image_pixel_size_A,
    }
    values |= {column: float(size) for column, size in sizes.items() if size is not None}
    if image_size is not None:
        values |= {"rlnImageSize": int(image_size), "rlnImageDimensionality": 2}
    return pd.DataFrame({column: [value] for column, value in values.items()})


def read_table(path: str | Path, kind: Kind) -> StarTable:
    """Read a table of ``kind`` in the layout of any RELION version from 3.0 on.

    Raises
    ------
    InputError
        The file cannot be read, has another kind of table, or lacks optics (kV, Cs, pixel size).
    """
    if kind not in _KINDS:
        raise InputError(f"{path}: {kind!r} is not a kind of table. Choose one of {', '.join(_KINDS)}.")
    blocks = read_blocks(path)
    found = next((name for name in (kind, *_ALIASES) if name in blocks), None)
    if found is None:
        raise InputError(
            f"{path}: the block data_{kind} is missing, there is only {', '.join('data_' + n for n in blocks)}. "
            f"Give the table of {kind}."
        )
    rows = blocks[found]
    if "optics" in blocks:
        table = StarTable(kind, blocks["optics"], rows)
        optics_of(table)  # an error if a row has no group
        return table
    return StarTable(kind, *optics_from_rows(rows, kind, str(path)))


def write_table(path: str | Path, table: StarTable, *, version: int = 30001) -> None:
    """Write a table as blocks ``data_optics`` and ``data_<kind>``, atomically.

    Raises
    ------
    InputError
        A number is not finite, a row has no optics group, or a column breaks its contract.
    """
    optics_of(table)
    for frame in (table.optics, table.rows):
        for name in frame.columns:
            if frame[name].dtype.kind != "f":
                continue
            values = frame[name].to_numpy()
            if not np.isfinite(values).all():
                row = int(np.argmin(np.isfinite(values)))
                raise InputError(
                    f"{path}: column {name}, row {row + 1} is {values[row]}, but it must be a finite number."
                )
    blocks = {} if table.optics.empty and table.kind == "coordinates" else {"optics": table.optics}
    write_blocks(path, blocks | {table.kind: table.rows}, version=version)


def concatenate(tables: Iterable[StarTable]) -> StarTable:
    """Join tables of one kind. Equal optics groups become one, and all groups are numbered from 1.

    Raises
    ------
    InputError
        There is no table, kinds or columns differ, or groups with the same name differ (pixel sizes by more than 0.1 %).
    """
    tables = list(tables)
    if not tables:
        raise InputError("the list of tables is empty, so there is nothing to join.")
    kinds = {table.kind for table in tables}
    if len(kinds) > 1:
        raise InputError(f"tables of different kinds cannot be joined: {', '.join(sorted(kinds))}.")
    optics, numbers = merge_optics([table.optics for table in tables])
    filled = [i for i, table in enumerate(tables) if len(table)] or [0]
    columns = list(tables[filled[0]].rows.columns)
    parts = []
    for i in filled:
        rows = tables[i].rows
        odd = set(columns).symmetric_difference(rows.columns)
        if odd:
            raise InputError(
                f"tables {filled[0] + 1} and {i + 1} of {len(tables)} cannot be joined: "
                f"only one of them has {', '.join(sorted(odd))}. Make both with the same step."
            )
        if "rlnOpticsGroup" in rows and numbers[i]:
            rows = rows.assign(rlnOpticsGroup=rows["rlnOpticsGroup"].map(numbers[i]).astype(np.int64))
        parts.append(rows[columns])
    return StarTable(tables[0].kind, optics, pd.concat(parts, ignore_index=True))


def write_rejections(path: str | Path, rejections: Iterable[RejectionLike]) -> None:
    """Write a TSV with header ``item  kind  reason``, atomically. Tabs and line breaks become spaces."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
    writer.writerow(["item", "kind", "reason"])
    for entry in rejections:
        writer.writerow([" ".join(field.split()) for field in (entry.item, entry.kind, entry.reason)])
    atomic_write(path, text.getvalue())


def read_rejections(path: str | Path) -> list[RejectionRow]:
    """Read a list that :func:`write_rejections` wrote."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: the list of rejections does not exist. Run its step again.") from None
    fields = [line.split("\t") for line in lines]
    if not fields or fields[0] != ["item", "kind", "reason"] or any(len(row) != 3 for row in fields):
        raise InputError(
            f"{path}: a list of rejections must have the three columns item, kind, reason. Run its step again."
        )
    return [RejectionRow(*row) for row in fields[1:]]
