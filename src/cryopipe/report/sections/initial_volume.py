"""Initial volumes: slices and history of each method that ran."""

from __future__ import annotations

from cryopipe.report.parts.maps import map_pictures
from cryopipe.report.reads import Reads
from cryopipe.report.run_files import RunFiles
from cryopipe.report.section import Part, Section

VOLUMES = Reads("initial_map", every=True)
HISTORIES = Reads("initial_history", every=True)


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
