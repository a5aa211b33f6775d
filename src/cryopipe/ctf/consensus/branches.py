"""The branches of a CTF consensus: the estimates of each estimator for each micrograph, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cryopipe.ctf.defocus import Defocus, Microscope, from_uv
from cryopipe.errors import InputError
from cryopipe.imaging.optics import CTF_COLUMNS
from cryopipe.io.star import StarTable, read_rejections, read_table

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Branch:
    """One table of estimates.

    Attributes
    ----------
    name : str
        Name of the estimator or consensus from which the table comes.
    table : StarTable
        Micrographs with CTF columns. It may be empty.
    failures : mapping
        ``{item: reason}`` of the micrographs for which it gave no estimate.
    """

    name: str
    table: StarTable
    failures: Mapping[str, str]

    @cached_property
    def rows(self) -> dict[str, Record]:
        """``{item: its row}``."""
        return _by_item(self.name, self.table.rows.to_dict("records"))

    @cached_property
    def records(self) -> dict[str, Record]:
        """``{item: its row joined with its optics}``."""
        return _by_item(self.name, self.table.with_optics().to_dict("records"))

    def failure(self, item: str) -> str:
        """Return why there is no estimate of ``item``."""
        return self.failures.get(item, "the micrograph is not in its table")


def item_of(record: Mapping[Any, Any]) -> str:
    """Return the name by which tables are joined: the item, or else the stem of the file."""
    return str(record.get("crpItem", Path(str(record["rlnMicrographName"])).stem))


def _by_item(name: str, rows: Iterable[Mapping[Any, Any]]) -> dict[str, Record]:
    records: dict[str, Record] = {}
    for row in rows:
        item = item_of(row)
        if item in records:
            raise InputError(f"micrograph {item} occurs twice in branch {name}. Give each a name of its own.")
        records[item] = {str(key): value for key, value in row.items()}
    return records


def read_branches(names: Sequence[str], tables: Sequence[Path], rejected: Sequence[Path]) -> list[Branch]:
    """Read one table of micrographs and one list of failures for each name.

    Raises
    ------
    InputError
        There are not as many tables or lists as names, or the tables differ in their optics groups.
    """
    if not len(names) == len(tables) == len(rejected):
        raise InputError(
            f"{len(names)} branches ({', '.join(names)}), but {len(tables)} tables and {len(rejected)} lists of "
            "failures. Give one of each for every branch, in this order."
        )
    branches = [
        Branch(name, read_table(table, "micrographs"), {row.item: row.reason for row in read_rejections(failed)})
        for name, table, failed in zip(names, tables, rejected, strict=True)
    ]
    first = branches[0]
    for other in branches[1:]:
        if not other.table.optics.equals(first.table.optics):
            raise InputError(
                f"the optics groups of branches {first.name} and {other.name} differ ({tables[0]}, "
                f"{tables[branches.index(other)]}). Estimate both from the same table of micrographs."
            )
    return branches


def defocus_of(record: Record) -> tuple[Defocus, Microscope]:
    """Return defocus and microscope of a row joined with its optics.

    Raises
    ------
    InputError
        A column is missing.
    """
    missing = [name for name in CTF_COLUMNS if name not in record]
    if missing:
        raise InputError(f"the table of micrographs lacks {', '.join(missing)}. Estimate the CTF first.")
    u, v, angle, voltage, cs, contrast = (float(record[name]) for name in CTF_COLUMNS)
    return from_uv(u, v, angle, float(record.get("rlnPhaseShift", 0.0))), Microscope(voltage, cs, contrast)
