"""Initial volumes: slices and history of each method that ran."""

from __future__ import annotations

from cryopipe.report.parts.maps import map_pictures
from cryopipe.report.run_files import RunFiles
from cryopipe.report.section import Part, Reads, Section

VOLUMES = Reads(name="initial", stage="initial_volume", output="map")
HISTORIES = Reads(name="initial_history", stage="initial_volume", output="history")


def build(run: RunFiles) -> Part:
    """Return slices and history of each initial volume."""
    return Part(page={"initial_volume": {"volumes": map_pictures(run, VOLUMES.name, HISTORIES.name, "initial map")}})


SECTION = Section(
    name="initial_volume",
    anchors={"initial_volume": "Initial volume"},
    reads=(VOLUMES, HISTORIES),
    needs=(VOLUMES.name,),
    build=build,
)
