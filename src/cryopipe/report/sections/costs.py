"""Time, memory and disk of each step: what was used, beside what was predicted."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopipe.report.drawing.tables import ABSENT
from cryopipe.report.run_files import RunFiles
from cryopipe.report.section import Part, Section
from cryopipe.steps import step_of


@dataclass(frozen=True)
class Quantity:
    """One quantity of which the jobs of a step use some.

    Attributes
    ----------
    heading : str
        Heading of its columns.
    used, predicted : str
        Keys of what was used and what was predicted, in a row of `costs`; empty where it is not measured or predicted.
    decimals : int
        Digits behind the point on the page.
    """

    heading: str
    used: str
    predicted: str
    decimals: int


QUANTITIES = (
    Quantity("seconds", "seconds", "predicted_seconds", 1),
    Quantity("CPU seconds", "cpu_seconds", "", 1),
    Quantity("largest memory (MB)", "max_rss_MB", "predicted_memory_MB", 0),
    Quantity("GPU memory (MB)", "", "predicted_gpu_memory_MB", 0),
    Quantity("disk (MB)", "disk_MB", "predicted_disk_MB", 1),
)


def build(run: RunFiles) -> Part:
    """Return what each step used and, where the plan of the run knew it, what was predicted."""
    rows = [
        row | {"disk_MB": disk_MB(run.folder, row["step"])} | predicted(run.params.predicted.get(row["step"], {}), row)
        for row in costs(run.folder / "benchmarks")
    ]
    return Part(numbers={"steps": rows}, page={"costs": table(rows)})


def costs(folder: Path) -> list[dict[str, Any]]:
    """Sum Snakemake's benchmark tables by step: jobs, seconds, CPU seconds, largest resident memory in MB."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*.tsv")):
        name = _name(path.relative_to(folder))
        total = found.setdefault(name, {"step": name, "jobs": 0, "seconds": 0.0, "cpu_seconds": 0.0, "max_rss_MB": 0.0})
        with path.open(newline="") as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                total["jobs"] += 1
                total["seconds"] += _number(row.get("s"))
                total["cpu_seconds"] += _number(row.get("cpu_time"))
                total["max_rss_MB"] = max(total["max_rss_MB"], _number(row.get("max_rss")))
    return sorted(found.values(), key=lambda row: -row["seconds"])


def _name(path: Path) -> str:
    """Return ``step`` or ``step/run`` of ``<stage>/<step>/[<run>/]<batch>.tsv``; names of jobs for the whole run are shorter."""
    parts = [part for part in path.with_suffix("").parts[1:] if not part.startswith("batch_")]
    return "/".join(parts)


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0  # Snakemake writes "-" or "NA" for a job that ended before it was sampled


def disk_MB(folder: Path, name: str) -> float:
    """Return the size of what a step left in the folder of the run, in MB."""
    files = (
        path for path in (folder / step_of(name).stage / name).rglob("*") if path.is_file() and not path.is_symlink()
    )
    return round(sum(path.stat().st_size for path in files) / 1e6, 3)


def predicted(job: Mapping[str, float], row: Mapping[str, Any]) -> dict[str, float]:
    """Return what was predicted for all jobs of a step together.

    Parameters
    ----------
    job : mapping
        Prediction for one job, by the names of `cryopipe.config.declare.Cost`; may lack any of them.
    row : mapping
        What the step used: its number of jobs.
    """
    whole = {
        "predicted_seconds": job.get("minutes", 0.0) * 60 * row["jobs"],
        "predicted_memory_MB": job.get("memory_MB", 0.0),
        "predicted_gpu_memory_MB": job.get("gpu_memory_MB", 0.0),
        "predicted_disk_MB": job.get("disk_MB", 0.0) * row["jobs"],
    }
    return {name: value for name, value in whole.items() if value}


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
