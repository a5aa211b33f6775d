"""Refined maps: slices and history of each refinement that ran."""

from __future__ import annotations

from cryopipe.report.parts.maps import map_pictures
from cryopipe.report.reads import Reads
from cryopipe.report.run_files import RunFiles
from cryopipe.report.section import Part, Section

MAPS = Reads("refined_map", every=True)
HISTORIES = Reads("refinement_history", every=True)


def build(run: RunFiles) -> Part:
    """Return slices and history of each refined map."""
    return Part(page={"map": {"maps": map_pictures(run, MAPS.name, HISTORIES.name, "refined map")}})


SECTION = Section(
    name="refinement",
    anchors={"map": "Map"},
    reads=(MAPS, HISTORIES),
    needs=(MAPS.name,),
    build=build,
)
