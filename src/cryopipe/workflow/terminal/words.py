"""Durations and runs in words."""

from __future__ import annotations

from cryopipe.workflow.plan import Plan


def duration(seconds: float) -> str:
    """Return ``seconds`` as a time with its unit, such as "49 s" or "12 min"."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def headline(plan: Plan) -> str:
    """Return name and images of a run in one line."""
    images = sum(map(len, plan.batches.values()))
    kind = "micrographs" if plan.source == "micrographs" else "movies"
    where = " (simulated)" if plan.source == "simulation" else ""
    count = len(plan.batches)
    return f"run {plan.config.run.name}: {images} {kind}{where} in {count} {'batch' if count == 1 else 'batches'}"
