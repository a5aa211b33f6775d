"""Time, memory and disk of each step: measured and predicted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cryopipe.config.declaration.costs import COSTS, Prediction
from cryopipe.report.drawing.tables import ABSENT
from cryopipe.report.run_files import RunFiles
from cryopipe.report.section import Part, Section
from cryopipe.workflow.costs.measured import used


@dataclass(frozen=True)
class Quantity:
    """One quantity that the jobs of a step use.

    Attributes
    ----------
    heading : str
        Heading of its columns.
    used, predicted : str
        Keys of the measured and the predicted value in a row of `cost_row`. Empty if it is not measured or not predicted.
    decimals : int
        Digits after the decimal point on the page.
    """

    heading: str
    used: str
    predicted: str
    decimals: int


QUANTITIES = (
    Quantity("seconds", "seconds", "predicted_seconds", 1),
    Quantity("CPU seconds", "cpu_seconds", "predicted_cpu_seconds", 1),
    Quantity("largest memory (MB)", "memory_MB", "predicted_memory_MB", 0),
    Quantity("GPU memory (MB)", "", "predicted_gpu_memory_MB", 0),
    Quantity("disk (MB)", "disk_MB", "predicted_disk_MB", 1),
)


def build(run: RunFiles) -> Part:
    """Return what each step used and, if the run has a prediction, what was predicted."""
    path = run.folder / COSTS
    predicted = json.loads(path.read_text()) if path.exists() else {}
    rows = [cost_row(name, needs, predicted.get(name, {})) for name, needs in used(run.folder).items()]
    rows.sort(key=lambda row: -row["seconds"])
    return Part(numbers={"steps": rows}, page={"costs": table(rows)})


def cost_row(name: str, needs: Prediction, predicted: Mapping[str, float]) -> dict[str, Any]:
    """Return what all jobs of a step used together, and what was predicted (a value of 0 means that there is none).

    Parameters
    ----------
    name : str
        ``<step>``, or ``<step>/<run>``.
    needs : Prediction
        What the jobs used.
    predicted : mapping
        Values of a `Prediction`. It may be empty.
    """
    values = {key: value for key, value in asdict(needs).items() if key != "gpu_memory_MB"}
    said = {f"predicted_{key}": value for key, value in predicted.items() if value and key != "jobs"}
    return {"step": name} | {key: round(value, 3) for key, value in (values | said).items()}


def table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return headings and cells of the table. A predicted quantity has a column if any step has a value."""
    columns: list[tuple[str, str, int]] = []
    for quantity in QUANTITIES:
        if quantity.used:
            columns.append((quantity.heading, quantity.used, quantity.decimals))
        if quantity.predicted and any(quantity.predicted in row for row in rows):
            columns.append((f"{quantity.heading}, predicted", quantity.predicted, quantity.decimals))
    return {
        "headings": [heading for heading, _, _ in columns],
        "rows": [
            (
                row["step"],
                row["jobs"],
                [f"{row[key]:.{digits}f}" if key in row else ABSENT for _, key, digits in columns],
            )
            for row in rows
        ],
    }


SECTION = Section(
    name="costs",
    anchors={"costs": "Time and memory"},
    build=build,
)
