"""The head of the page: the main numbers, pictures of the map, and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cryopipe.report.section import Part


def summary_page(parts: Sequence[Part], numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the head of the page shows. ``numbers`` are those of all ``parts``."""
    return {
        "cards": cards(numbers),
        "columns": [column for part in parts for column in part.headline],
        "warnings": [warning for part in parts for warning in part.warnings],
    }


def cards(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (value, label) of the headline numbers."""
    found = []
    if "map" in numbers:
        found.append((f"{numbers['map']['fsc0143_A']:.2f} Å", "resolution: half maps, corrected FSC 0.143"))
    if truth := numbers.get("truth"):
        found.append((f"{truth['fsc05_A']:.2f} Å", "against the true map, FSC 0.5"))
        found.append((f"{truth['fsc05_true_poses_A']:.2f} Å", "the limit: same particles, true poses, FSC 0.5"))
    if model := numbers.get("model"):
        found.append((f"{model['fsc05_A']:.2f} Å", "against the atomic model, FSC 0.5"))
    for unit in ("movies", "micrographs", "particles"):
        counts = numbers["counts"][unit]
        if counts["in"]:
            found.append((f"{counts['accepted']} / {counts['in']}", f"{unit} accepted"))
    found.append((f"{sum(row['seconds'] for row in numbers['steps']) / 60:.1f} min", "sum of all jobs' wall times"))
    return found
