"""What each CTF estimator contributes to the defocus that goes on: its stated error, its weight, and where it was out-voted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cryopipe.report.drawing.tables import significant

#: So many micrographs are named in a warning.
_NAMED = 5


def member_numbers(frame: pd.DataFrame, estimators: Sequence[str]) -> list[dict[str, Any]]:
    """Return one record for each estimator, and one for the result.

    Parameters
    ----------
    frame : DataFrame
        Accepted micrographs with the columns of the consensus; the index is the item.
    estimators : sequence of str
        Names of the estimators.
    """
    records = []
    for name in estimators:
        error, weight = (_values(frame, f"crpCtf{name.title()}{what}") for what in ("DefocusMeanError", "Weight"))
        record: dict[str, Any] = {"name": name, "out_voted": _out_voted(frame, name)}
        record |= {"error_A": significant(float(np.median(error)))} if len(error) else {}
        record |= {"weight": significant(float(weight.mean()))} if len(weight) else {}
        records.append(record)
    result = _values(frame, "crpCtfDefocusMeanError")
    if len(result):
        records.append({"name": "consensus", "error_A": significant(float(np.median(result))), "out_voted": []})
    return records


def member_rows(numbers: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the cells of the table on the page: name, error, weight, how often out-voted."""
    return [
        [
            str(record["name"]),
            f"{record['error_A']:.3g}" if "error_A" in record else "–",
            f"{record['weight']:.2f}" if "weight" in record else "–",
            str(len(record["out_voted"])),
        ]
        for record in numbers
    ]


def member_warnings(numbers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a warning for each estimator that was out-voted, with the first of its micrographs."""
    found = []
    for record in numbers:
        items = record["out_voted"]
        if items:
            more = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
            named = ", ".join(items[:_NAMED]) + more
            found.append(f"{record['name']} contradicts the other CTF estimators, which were followed, on {named}.")
    return found


def _values(frame: pd.DataFrame, column: str) -> np.ndarray:
    """Return the numbers of a column, without missing ones, which are negative in STAR files."""
    if column not in frame:
        return np.zeros(0)
    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(np.float64)
    return np.asarray(values[np.isfinite(values) & (values >= 0)])


def _out_voted(frame: pd.DataFrame, name: str) -> list[str]:
    if "crpCtfConsensusOutVoted" not in frame:
        return []
    return [str(item) for item, names in frame["crpCtfConsensusOutVoted"].items() if name in str(names).split("+")]
