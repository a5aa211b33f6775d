"""Refined maps: slices and history of each refinement that ran."""

from __future__ import annotations

from cryopipe.report.parts.maps import map_pictures
from cryopipe.report.run_files import RunFiles
from cryopipe.report.section import Part, Reads, Section

MAPS = Reads(name="refined", stage="refinement", output="map")
HISTORIES = Reads(name="refinement_history", stage="refinement", output="history")


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
