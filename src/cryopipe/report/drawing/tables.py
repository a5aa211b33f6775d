"""Tables of items: which columns are shown, how values are written, and which rows are shown if there are many."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from cryopipe.errors import CryopipeError
from cryopipe.io.own_columns import own_column

Worst = Literal["high", "low", ""]
#: What a STAR table has if there is no value.
_MISSING = -9999.0
#: What a table of the page shows if there is no value.
ABSENT = "–"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    key : str
        Column of the data frame, and its name in the JSON.
    label, unit : str
        Heading.
    decimals : int
        Digits after the decimal point.
    worst : {"high", "low", ""}
        Which end of the column is the worst. Empty: neither.
    meaning : str
        What the column means, in a sentence.
    """

    key: str
    label: str
    unit: str = ""
    decimals: int = 0
    worst: Worst = ""
    meaning: str = ""

    @classmethod
    def own(cls, key: str, label: str, decimals: int = 0, worst: Worst = "") -> Column:
        """Return one of our own columns, with the unit and the meaning that `cryopipe.io.own_columns` declares.

        Parameters
        ----------
        key, label, decimals, worst
            As the attributes of the same names.

        Raises
        ------
        CryopipeError
            ``key`` is not declared.
        """
        declared = own_column(key)
        if declared is None:
            raise CryopipeError(f"the report shows {key}, which cryopipe.io.own_columns does not declare. Declare it.")
        return cls(key, label, declared.unit, decimals, worst, declared.meaning)

    @property
    def heading(self) -> str:
        """Label with unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True)
class Table:
    """A table as the page shows it.

    Attributes
    ----------
    key, caption : str
        Anchor and caption.
    columns : list of Column
        Item and status first.
    rows : list of (str, list of str)
        For each row the link of its item, or empty, and its cells as text.
    total : int
        Number of rows of the whole table, from which these were chosen.
    """

    key: str
    caption: str
    columns: list[Column]
    rows: list[tuple[str, list[str]]]
    total: int


def numeric(frame: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """Return ``frame`` with those of ``columns`` that it has as numbers, NaN if there is no value."""
    found = {
        column.key: pd.to_numeric(frame[column.key], errors="coerce").astype("float64")
        for column in columns
        if column.key in frame
    }
    return frame.assign(**{key: values.where(values != _MISSING) for key, values in found.items()})


def present(frame: pd.DataFrame, columns: Sequence[Column]) -> list[Column]:
    """Return the columns that ``frame`` has and that have at least one number."""
    return [c for c in columns if c.key in frame and bool(np.isfinite(frame[c.key].to_numpy(np.float64)).any())]


def make_table(
    frame: pd.DataFrame,
    columns: Sequence[Column],
    *,
    key: str,
    caption: str,
    limit: int,
    links: Mapping[str, str] | None = None,
) -> Table:
    """Return the table of the ``columns`` that ``frame`` has, item and status first.

    Parameters
    ----------
    frame : DataFrame
        Its index is the item. It has a column ``status``, and numbers as from `numeric`.
    columns : sequence of Column
        Columns in the order of the page.
    key, caption : str
        Anchor and caption.
    limit : int
        Largest number of rows. `worst_and_sample` chooses them.
    links : mapping, optional
        ``{item: file}``.
    """
    shown = present(frame, columns)
    part = frame.iloc[sorted(position for position, _ in worst_and_sample(frame, shown, limit))]
    cells = [part[c.key].map(lambda value, c=c: text(value, c.decimals)).tolist() for c in shown]
    items = [str(item) for item in part.index]
    statuses = part["status"].astype(str).tolist()
    rows = [
        ((links or {}).get(item, ""), [item, status, *values])
        for item, status, *values in zip(items, statuses, *cells, strict=True)
    ]
    head = [Column("item", "item"), Column("status", "status")]
    return Table(key, caption, [*head, *shown], rows, len(frame))


def text(value: float, decimals: int) -> str:
    """Return the text of a number in a cell."""
    return ABSENT if not math.isfinite(value) else f"{value:.{decimals}f}"


def worst_and_sample(frame: pd.DataFrame, columns: Sequence[Column], limit: int) -> list[tuple[int, str]]:
    """Return (position, reason) of at most ``limit`` rows, those first that a user should look at.

    If there are at most ``limit``, these are all rows, with an empty reason. Otherwise half of them are the worst of each
    column in turn, up to a quarter are rows that were not accepted, and the rest are rows at even distances.
    """
    if len(frame) <= limit:
        return [(position, "") for position in range(len(frame))]
    chosen: dict[int, str] = {}
    rankings = [(column, ranked) for column in columns if len(ranked := _ranked(frame, column))]
    for rank in range(limit // 2):
        for column, ranked in rankings:
            if len(chosen) < limit // 2 and rank < len(ranked):
                chosen.setdefault(ranked[rank], _why(frame, column, ranked[rank], rank))
    for group, count in ((frame["status"] != "accepted", limit // 4), (frame["status"] == frame["status"], limit)):
        others = [int(i) for i in np.flatnonzero(group.to_numpy()) if i not in chosen]
        chosen |= dict.fromkeys(spaced(others, min(count, limit - len(chosen))), "sample")
    return list(chosen.items())


def _ranked(frame: pd.DataFrame, column: Column) -> list[int]:
    """Return the positions of the rows, the worst first. Empty if all rows are equal or neither end is the worst."""
    if not column.worst or column.key not in frame:
        return []
    values = frame[column.key].to_numpy(np.float64)
    order = np.argsort(-values if column.worst == "high" else values, kind="stable")
    finite = [int(i) for i in order if np.isfinite(values[i])]
    return finite if finite and values[finite[0]] != values[finite[-1]] else []


def _why(frame: pd.DataFrame, column: Column, position: int, rank: int) -> str:
    value = text(float(frame[column.key].iloc[position]), column.decimals)
    side = "highest" if column.worst == "high" else "lowest"
    return f"{column.label} {value} {column.unit}".rstrip() + f": {side if rank == 0 else f'among the {side}'}"


def spaced(items: Sequence[int], count: int) -> list[int]:
    """Return at most ``count`` of ``items`` at even distances."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).astype(int)] if count else []


def summary(frame: pd.DataFrame, columns: Sequence[Column]) -> dict[str, dict[str, float | str]]:
    """Return ``{column: {median, p05, p95, min, max, unit}}`` of the columns that have numbers."""
    found: dict[str, dict[str, float | str]] = {}
    for column in present(frame, columns):
        values = frame[column.key].to_numpy(np.float64)
        values = values[np.isfinite(values)]
        p05, median, p95 = np.percentile(values, [5, 50, 95])
        numbers = {"median": median, "p05": p05, "p95": p95, "min": values.min(), "max": values.max()}
        found[column.key] = {name: significant(float(value)) for name, value in numbers.items()} | {"unit": column.unit}
    return found


def summary_rows(frame: pd.DataFrame, columns: Sequence[Column]) -> list[list[str]]:
    """Return the rows (name, median, 5-95 %, smallest, largest) of `summary` as text."""
    numbers = summary(frame, columns)
    rows = []
    for column in present(frame, columns):
        value = {name: text(float(v), column.decimals) for name, v in numbers[column.key].items() if name != "unit"}
        rows.append([column.heading, value["median"], f"{value['p05']} … {value['p95']}", value["min"], value["max"]])
    return rows


def numbers_of(frame: pd.DataFrame, columns: Sequence[Column]) -> dict[str, Any]:
    """Return all rows for the JSON: ``{"columns": [...], "rows": [[item, status, numbers or null]]}``."""
    shown = present(frame, columns)
    values = frame[[column.key for column in shown]].to_numpy(np.float64)
    rows = [
        [str(item), str(status), *(significant(v) if math.isfinite(v) else None for v in row)]
        for item, status, row in zip(frame.index, frame["status"], values.tolist(), strict=True)
    ]
    return {"columns": ["item", "status", *(column.key for column in shown)], "rows": rows}


def significant(value: float) -> float:
    """Return ``value`` with six significant digits, more than any estimate here has."""
    return float(f"{value:.6g}")
