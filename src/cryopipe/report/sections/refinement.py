"""Refined maps: slices and history of each refinement that ran, and a warning where its half maps do not support it."""

from __future__ import annotations

from pathlib import Path

from cryopipe.refinement.support import unsupported
from cryopipe.report.parts.maps import map_pictures
from cryopipe.report.reads import Reads
from cryopipe.report.run_files import RunFiles, read_history
from cryopipe.report.section import Part, Section

MAPS = Reads("refined_map", every=True)
HISTORIES = Reads("refinement_history", every=True)


def build(run: RunFiles) -> Part:
    """Return slices and history of each refined map, and what speaks against it."""
    reasons = {step: warning(paths[0]) for step, paths in run.by_step(HISTORIES.name).items()}
    return Part(
        page={"map": {"maps": map_pictures(run, MAPS.name, HISTORIES.name, "refined map")}},
        warnings=[f"{step}: {reason}" for step, reason in reasons.items() if reason],
    )


def warning(history: Path) -> str | None:
    """Return why the half maps of a refinement do not support its map; None where they do or the history does not tell."""
    rows = read_history(history)
    if not rows or not {"fsc143_A", "start_A"} <= set(rows[-1]):
        return None
    return unsupported(float(rows[-1]["fsc143_A"]), float(rows[-1]["start_A"]))


SECTION = Section(
    name="refinement",
    anchors={"map": "Map"},
    reads=(MAPS, HISTORIES),
    needs=(MAPS.name,),
    build=build,
)
