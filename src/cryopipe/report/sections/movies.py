"""Movies: gain and defects of the camera, and the motion of the specimen."""

from __future__ import annotations

from typing import Any

from cryopipe.report.parts.gain import gain_page
from cryopipe.report.parts.motion import motion_part
from cryopipe.report.reads import ENTERING, REJECTED, Reads
from cryopipe.report.run_files import RunFiles
from cryopipe.report.section import Part, Section

GAIN = Reads("gain_summary")
ALIGNED = Reads("aligned_micrographs")


def build(run: RunFiles) -> Part:
    """Return the content about the gain and the motion of each movie."""
    numbers: dict[str, Any] = {}
    page: dict[str, Any] = {"gain": None, "motion": None}
    if GAIN.name in run:
        numbers["gain"] = run.json(GAIN.name)
        page["gain"] = gain_page(run, numbers["gain"])
    if ALIGNED.name in run:
        numbers["motion"], page["motion"] = motion_part(run)
    return Part(numbers=numbers, page=page)


SECTION = Section(
    name="movies",
    anchors={"gain": "Gain", "motion": "Motion"},
    reads=(
        GAIN,
        Reads("gain_estimate"),
        Reads("gain_residual"),
        Reads("defects"),
        ALIGNED,
        ENTERING,
        REJECTED,
    ),
    needs=(GAIN.name, ALIGNED.name),
    build=build,
)
