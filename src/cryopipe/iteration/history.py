"""The history of an iterative method: one row of numbers per iteration, the same in checkpoint and table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cryopipe.io.atomic import atomic_write

#: a dataclass of floats, whose field names are the columns
Row = TypeVar("Row")


def write_history(path: str | Path, kind: type[Any], rows: Sequence[Any]) -> None:
    """Write a table with tabs between its columns: a line of names (the fields of ``kind``) and one line per row."""
    lines = ["\t".join(field.name for field in fields(kind))]
    lines += ["\t".join(f"{float(value):.6g}" for value in astuple(row)) for row in rows]
    atomic_write(path, "\n".join(lines) + "\n")


def rows_to_array(rows: Sequence[Any]) -> NDArray[np.float64]:
    """Return rows as float64 ``[rows, columns]``."""
    return np.array([[float(value) for value in astuple(row)] for row in rows], dtype=np.float64)


def rows_of_array(kind: type[Row], values: NDArray[np.float64]) -> list[Row]:
    """Return the rows from an array that `rows_to_array` made."""
    return [kind(*row) for row in values.tolist()]
