"""``cryopipe check``: what a run would do, and what each of its steps will need."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from cryopipe.config.declaration.costs import MEMORY_MARGIN, TIME_MARGIN, Prediction
from cryopipe.workflow.costs.elapsed import elapsed_s
from cryopipe.workflow.costs.prediction import Costs
from cryopipe.workflow.plan import Plan
from cryopipe.workflow.terminal.words import duration, headline

_HEADINGS = ("step", "jobs", "memory", "CPU time", "time", "GPU memory", "disk")


def check_text(plan: Plan, cores: int) -> str:
    """Return what the run would do, and a table of what its steps will need on ``cores`` cores."""
    costs = Costs(plan)
    predicted = costs.predict(cores)
    return "\n".join([*_facts(costs), "", *_table(predicted), "", *_notes(costs, cores)])


def check_json(plan: Plan, cores: int) -> str:
    """Return the counts and sizes of the run and the prediction for each step as JSON."""
    costs = Costs(plan)
    said = {
        "run": plan.config.run.name,
        "results": str(plan.results),
        "source": plan.source,
        "batches": len(plan.batches),
        "sizes": asdict(costs.sizes),
        "sizes_known_from": costs.movie.known_from,
        "cores": cores,
        "steps": {name: asdict(found) for name, found in costs.predict(cores).items()},
        "elapsed_seconds": elapsed_s(costs.jobs(cores), cores),
    }
    return json.dumps(said, indent=1, ensure_ascii=False)


def _facts(costs: Costs) -> list[str]:
    plan, sizes = costs.plan, costs.sizes
    known, (frames, rows, columns) = plan.facts, costs.movie.shape
    images = "micrographs" if plan.source == "micrographs" else "movies"
    size = f"{columns} x {rows} px" + ("" if plan.source == "micrographs" else f", {frames} frames")
    return [
        headline(plan),
        f"  {known.pixel_size_A:g} Å/px, {known.voltage_kV:g} kV, Cs {known.cs_mm:g} mm, "
        f"particle {known.particle_diameter_A:g} Å, symmetry {known.symmetry}",
        f"  {images} of {size} (from {costs.movie.known_from})",
        f"  about {sizes.particles} particles of {sizes.box_px} px, {sizes.pixel_A:.4g} Å/px",
        f"  results: {plan.results}",
    ]


def _table(predicted: Mapping[str, Prediction]) -> list[str]:
    found = list(predicted.values())
    whole = Prediction(
        jobs=sum(step.jobs for step in found),
        memory_MB=max(step.memory_MB for step in found),
        cpu_seconds=sum(step.cpu_seconds for step in found),
        seconds=sum(step.seconds for step in found),
        gpu_memory_MB=max(step.gpu_memory_MB for step in found),
        disk_MB=sum(step.disk_MB for step in found),
    )
    return _aligned([_HEADINGS, *(_row(*item) for item in predicted.items()), _row("all", whole)])


def _row(name: str, needs: Prediction) -> tuple[str, ...]:
    return (
        name,
        str(needs.jobs),
        _megabytes(needs.memory_MB),
        duration(needs.cpu_seconds),
        duration(needs.seconds),
        _megabytes(needs.gpu_memory_MB) if needs.gpu_memory_MB else "",
        _megabytes(needs.disk_MB),
    )


def _notes(costs: Costs, cores: int) -> list[str]:
    elapsed = elapsed_s(costs.jobs(cores), cores)
    return [
        f"on {cores} {'core' if cores == 1 else 'cores'} the run takes about {duration(elapsed)}, on the CPU alone",
        f"memory is that of the largest job of a step; rules ask for {MEMORY_MARGIN:g} times as much, and for "
        f"{TIME_MARGIN:g} times the time",
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]


def _megabytes(value: float) -> str:
    return f"{value / 1000:.1f} GB" if value >= 1000 else f"{max(value, 1):.0f} MB"
