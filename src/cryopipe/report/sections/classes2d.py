"""2D classes: averages, sizes, and what was decided about each."""

from __future__ import annotations

from typing import Any

from cryopipe.io.mrc import read_stack
from cryopipe.io.star import read_blocks
from cryopipe.report.drawing import figures
from cryopipe.report.reads import Reads
from cryopipe.report.run_files import RunFiles
from cryopipe.report.section import Part, Section

AVERAGES = Reads("class_averages")
FEATURES = Reads("class_features")


def build(run: RunFiles) -> Part:
    """Return the class averages, largest first, with what was decided about each."""
    averages, _ = read_stack(run.path(AVERAGES.name))
    features = next(iter(read_blocks(run.path(FEATURES.name)).values()))
    # typed loosely, since only the STAR file knows the columns
    rows: list[Any] = list(features.sort_values("crpParticles", ascending=False).itertuples())
    classes: list[dict[str, Any]] = [
        {
            "number": int(row.rlnClassIndex),
            "size": int(row.crpParticles),
            "kept": bool(row.crpKept),
            "note": "" if row.crpKept else str(row.crpReason),
        }
        for row in rows
    ]
    shown = [c | {"source": figures.class_picture(averages[c["number"] - 1])} for c in classes]
    return Part(numbers={"classes2d": classes}, page={"classes2d": {"classes": shown}})


SECTION = Section(
    name="classes2d",
    anchors={"classes2d": "2D classes"},
    reads=(AVERAGES, FEATURES),
    needs=(FEATURES.name,),
    build=build,
)
