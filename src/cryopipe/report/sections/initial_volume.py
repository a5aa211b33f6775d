"""Initial volumes: slices and history of each method that ran, and how its seeds compare."""

from __future__ import annotations

import json
from typing import Any

from cryopipe.report.parts.maps import map_pictures
from cryopipe.report.reads import Reads
from cryopipe.report.run_files import RunFiles
from cryopipe.report.section import Part, Section

VOLUMES = Reads("initial_map", every=True)
HISTORIES = Reads("initial_history", every=True)
SEEDS = Reads("initial_seeds", every=True)


def build(run: RunFiles) -> Part:
    """Return slices and history of each initial volume, its seeds, and a warning where nothing says that it is right."""
    seeds: dict[str, dict[str, Any]] = {
        step: json.loads(paths[0].read_text()) for step, paths in run.by_step(SEEDS.name).items()
    }
    page = {
        "volumes": map_pictures(run, VOLUMES.name, HISTORIES.name, "initial map"),
        "contests": [{"step": step} | found for step, found in seeds.items()],
    }
    return Part(
        numbers={"initial_volume": seeds},
        page={"initial_volume": page},
        warnings=[f"{step}: {found['message']}" for step, found in seeds.items() if found["warning"]],
    )


SECTION = Section(
    name="initial_volume",
    anchors={"initial_volume": "Initial volume"},
    reads=(VOLUMES, HISTORIES, SEEDS),
    needs=(VOLUMES.name,),
    build=build,
)
