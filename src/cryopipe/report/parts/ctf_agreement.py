"""CTF estimators compared in pairs: to which resolution any two agree, and how their defoci differ.

The comparison uses the tables of the estimators, so it includes the micrographs that were rejected. The measure is that of
the consensus (`cryopipe.ctf.consensus.agreement`): the resolution at which the phases of two CTFs differ by 90°.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopipe.ctf.consensus.agreement import agreement
from cryopipe.ctf.consensus.branches import defocus_of
from cryopipe.imaging.optics import electron_wavelength_A
from cryopipe.imaging.statistics import robust_sd
from cryopipe.report.drawing import plots
from cryopipe.report.drawing.tables import significant

#: Resolution in Å for two CTFs that agree nowhere.
_NEVER_A = 9999.0
#: If a pair agrees on a smaller share of micrographs, there is a warning.
_FEW = 0.7
Values = NDArray[np.float64]


@dataclass(frozen=True)
class PairComparison:
    """Two estimators, compared on the micrographs for which both have an estimate.

    Attributes
    ----------
    names : (str, str)
        Names of the estimators.
    items : list of str
        Micrographs. All arrays have this order.
    crossing_A : float64 ``[n]``
        Resolution at which the phases of the two estimates differ by 90°, Å.
    u_A, v_A : (float64 ``[n]``, float64 ``[n]``)
        Larger and smaller defocus from each, Å.
    """

    names: tuple[str, str]
    items: list[str]
    crossing_A: Values
    u_A: tuple[Values, Values]
    v_A: tuple[Values, Values]

    @property
    def column(self) -> str:
        """Column of the consensus with the agreement of this pair."""
        return "crpCtfAgreement" + "".join(name.title() for name in sorted(self.names))

    @property
    def mean_A(self) -> tuple[Values, Values]:
        """Mean defocus from each estimator."""
        first, second = ((u + v) / 2 for u, v in zip(self.u_A, self.v_A, strict=True))
        return first, second


def compare(tables: Mapping[str, pd.DataFrame]) -> list[PairComparison]:
    """Compare all pairs of estimators.

    Parameters
    ----------
    tables : mapping
        ``{name: rows joined with their optics, index: items}``.
    """
    records = {name: _records(frame) for name, frame in tables.items()}
    pairs = []
    for first, second in itertools.combinations(tables, 2):
        items = [item for item in records[first] if item in records[second]]
        crossings = []
        for item in items:
            a, b = records[first][item], records[second][item]
            found = agreement(defocus_of(a), defocus_of(b), float(a["rlnMicrographPixelSize"]))
            crossings.append(min(found.crossing_A, _NEVER_A))
        u, v = (
            (_column(records[first], items, name), _column(records[second], items, name))
            for name in ("rlnDefocusU", "rlnDefocusV")
        )
        pairs.append(PairComparison((first, second), items, np.array(crossings, dtype=np.float64), u, v))
    return pairs


def _records(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    rows = [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
    return {str(item): row for item, row in zip(frame.index, rows, strict=True)}


def _column(records: Mapping[str, Mapping[str, Any]], items: Sequence[str], name: str) -> Values:
    return np.array([float(records[item][name]) for item in items], dtype=np.float64)


def pair_numbers(pair: PairComparison, limit_A: float) -> dict[str, Any]:
    """Return how many agree to ``limit_A``, at which resolution phases differ by 90°, and how much defoci differ."""
    numbers: dict[str, Any] = {
        "first": pair.names[0],
        "second": pair.names[1],
        "compared": len(pair.items),
        "agreeing": int((pair.crossing_A <= limit_A).sum()),
    }
    if not pair.items:
        return numbers
    differences = {
        "defocus_difference_A": pair.mean_A[0] - pair.mean_A[1],
        "defocus_u_difference_A": pair.u_A[0] - pair.u_A[1],
        "defocus_v_difference_A": pair.v_A[0] - pair.v_A[1],
    }
    worst = int(np.argmax(pair.crossing_A))
    return numbers | {
        "crossing_A": {
            "median": significant(float(np.median(pair.crossing_A))),
            "p95": significant(float(np.percentile(pair.crossing_A, 95))),
            "worst": significant(float(pair.crossing_A[worst])),
            "worst_item": pair.items[worst],
        },
        **{
            name: {
                "median": significant(float(np.median(d))),
                "robust_sd": significant(robust_sd(d)),
            }
            for name, d in differences.items()
        },
    }


def band_half_width_A(limit_A: float, voltage_kV: float) -> float:
    """Return the defocus difference, Å, at which two phases differ by 90° at the resolution ``limit_A``: d² / (2 λ)."""
    return float(limit_A**2 / (2 * electron_wavelength_A(voltage_kV)))


def agreement_part(
    tables: Mapping[str, pd.DataFrame], comparisons: Sequence[PairComparison], accepted: set[str], limit_A: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the numbers for the JSON, and the matrix of plots and numbers for the page.

    Parameters
    ----------
    tables : mapping
        ``{name: rows joined with their optics, index: items}``.
    comparisons : sequence of PairComparison
        Comparisons of all pairs of ``tables``.
    accepted : set of str
        Items that the consensus accepted.
    limit_A : float
        Resolution to which two estimates must agree, Å.
    """
    pairs = {pair.names: pair for pair in comparisons}
    numbers: dict[str, Any] = {
        "limit_A": limit_A,
        "estimators": {name: len(frame) for name, frame in tables.items()},
        "pairs": [pair_numbers(pair, limit_A) for pair in pairs.values()],
    }
    voltages = [float(frame["rlnVoltage"].iloc[0]) for frame in tables.values() if len(frame)]
    half_width = band_half_width_A(limit_A, voltages[0]) if voltages else 0.0
    by_names = {(p["first"], p["second"]): p for p in numbers["pairs"]}
    names = list(tables)
    matrix = []
    for i, row in enumerate(names):
        cells: list[dict[str, str]] = []
        for j, column in enumerate(names):
            if i == j:
                values = (tables[row]["rlnDefocusU"] + tables[row]["rlnDefocusV"]).to_numpy(np.float64) / 2e4
                source = plots.histogram({row: values}, label=f"defocus by {row} (µm)")
                cells.append({"alt": f"Defocus by {row}: {len(values)} micrographs", "source": source})
            elif i > j:
                cells.append(_scatter_cell(pairs[column, row], accepted, half_width))
            else:
                cells.append(_difference_cell(pairs[row, column], half_width))
        matrix.append({"name": row, "cells": cells})
    rows = [_number_row(by_names[names_]) for names_ in pairs]
    return numbers, {"names": names, "matrix": matrix, "rows": rows, "limit_A": limit_A, "half_width_A": half_width}


def warnings(numbers: Mapping[str, Any]) -> list[str]:
    """Return what a user should check in the numbers of `agreement_part`."""
    return [
        f"{pair['first']} and {pair['second']} agree on only {pair['agreeing']} of {pair['compared']} micrographs."
        for pair in numbers["pairs"]
        if pair["compared"] and pair["agreeing"] < _FEW * pair["compared"]
    ]


def _scatter_cell(pair: PairComparison, accepted: set[str], half_width: float) -> dict[str, str]:
    lost = np.array([item not in accepted for item in pair.items], dtype=bool)
    source = plots.against(*pair.mean_A, lost, names=pair.names, half_width_A=half_width)
    return {"alt": f"Defocus by {pair.names[1]} against {pair.names[0]}", "source": source}


def _difference_cell(pair: PairComparison, half_width: float) -> dict[str, str]:
    values = {
        "U": (pair.u_A[0] - pair.u_A[1]),
        "V": (pair.v_A[0] - pair.v_A[1]),
    }
    widest = max((float(np.percentile(np.abs(v), 99.5)) for v in values.values() if v.size), default=0.0)
    # lines far outside the data would compress it into one bar
    lines = (-half_width, half_width) if half_width <= 4 * widest else ()
    source = plots.histogram(values, label=f"defocus, {pair.names[0]} - {pair.names[1]} (Å)", lines=lines)
    return {"alt": f"Differences of defocus, {pair.names[0]} minus {pair.names[1]}", "source": source}


def _number_row(numbers: Mapping[str, Any]) -> list[str]:
    if not numbers["compared"]:
        return [numbers["first"], numbers["second"], "0", "0", *["–"] * 5]
    crossing, mean = numbers["crossing_A"], numbers["defocus_difference_A"]
    return [
        numbers["first"],
        numbers["second"],
        str(numbers["compared"]),
        str(numbers["agreeing"]),
        f"{crossing['median']:.2f}",
        f"{crossing['p95']:.2f}",
        f"{crossing['worst']:.2f} ({crossing['worst_item']})",
        f"{mean['median']:.0f}",
        f"{mean['robust_sd']:.0f}",
    ]
