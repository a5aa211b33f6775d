"""Time, memory and disk of each step: what was used, beside what was predicted."""

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
    """One quantity of which the jobs of a step use some.

    Attributes
    ----------
    heading : str
        Heading of its columns.
    used, predicted : str
        Keys of what was used and what was predicted, in a row of `cost_row`; empty where it is not measured or predicted.
    decimals : int
        Digits behind the point on the page.
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
    """Return what each step used and, where the plan of the run knew it, what was predicted."""
    path = run.folder / COSTS
    predicted = json.loads(path.read_text()) if path.exists() else {}
    rows = [cost_row(name, needs, predicted.get(name, {})) for name, needs in used(run.folder).items()]
    rows.sort(key=lambda row: -row["seconds"])
    return Part(numbers={"steps": rows}, page={"costs": table(rows)})


def cost_row(name: str, needs: Prediction, predicted: Mapping[str, float]) -> dict[str, Any]:
    """Return what all jobs of a step used together, and what was predicted of that (a value of 0 is none).

    Parameters
    ----------
    name : str
        ``<step>``, or ``<step>/<run>``.
    needs : Prediction
        What they used.
    predicted : mapping
        Values of a `Prediction`; may be empty.
    """
    values = {key: value for key, value in asdict(needs).items() if key != "gpu_memory_MB"}
    said = {f"predicted_{key}": value for key, value in predicted.items() if value and key != "jobs"}
    return {"step": name} | {key: round(value, 3) for key, value in (values | said).items()}


def table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return headings and cells of the table; a prediction has a column where there is one for any step."""
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
