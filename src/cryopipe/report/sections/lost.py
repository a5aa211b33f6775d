"""Counts of what entered and left each step, and rejected and quarantined items with their reasons and pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from cryopipe.report.counts import Loss, count, reason_group, unit_of
from cryopipe.report.drawing.cards import Card, ctf_pictures, micrograph, spectra, tracks
from cryopipe.report.drawing.tables import spaced
from cryopipe.report.reads import (
    COORDINATES,
    DESELECTED,
    ENTERING,
    ESTIMATES,
    MICROGRAPHS,
    REFINED_PARTICLES,
    REJECTED,
)
from cryopipe.report.run_files import RunFiles
from cryopipe.report.section import Part, Section
from cryopipe.steps import step_of

#: A larger share of rejected movies or micrographs gives a warning.
_MANY = 0.3


def build(run: RunFiles) -> Part:
    """Count the items that entered and left each step, and list those that were lost."""
    steps = list(run.rejections)
    goes_on = run.by_step(COORDINATES.name)
    counts, rows = count(run.losses, accepted=accepted(run, steps), steps=steps, goes_on=goes_on)
    picked = len(run.table(COORDINATES.name, "coordinates").rows) if goes_on else 0
    return Part(
        numbers={"counts": counts | {"steps": rows, "picked": picked}},
        page={"counts": {"rows": rows}, "rejected": lost_items(run)},
        warnings=warnings(counts, picked),
    )


def accepted(run: RunFiles, steps: Sequence[str]) -> dict[str, int]:
    """Return ``{unit: number of items after its last step}``, counted in the tables that were handed over."""
    found = {}
    if any(unit_of(step) == "movies" for step in steps):
        found["movies"] = len(run.table(ENTERING.name, "micrographs").rows)
    if MICROGRAPHS.name in run:
        # a table of coordinates lacks micrographs without picks, so those that the picker lost are taken from its list
        unpicked = sum(
            loss.unit == "micrographs" and step_of(loss.step).stage == "picking" and loss.step not in run.side_branches
            for loss in run.losses
        )
        found["micrographs"] = len(run.table(MICROGRAPHS.name, "micrographs").rows) - unpicked
    if REFINED_PARTICLES.name in run:
        found["particles"] = len(run.used_positions)
    return found


def warnings(counts: Mapping[str, Mapping[str, int]], picked: int) -> list[str]:
    """Return what a user should check in the counts."""
    found = []
    if picked != counts["particles"]["in"]:
        found.append(
            f"There are {picked} picks, but {counts['particles']['in']} particles were counted: some were lost without a record."
        )
    for unit in ("movies", "micrographs"):
        if counts[unit]["in"] and counts[unit]["rejected"] > _MANY * counts[unit]["in"]:
            found.append(f"{counts[unit]['rejected']} of {counts[unit]['in']} {unit} were rejected.")
    return found


def lost_items(run: RunFiles) -> dict[str, Any]:
    """Return the lists of rejected and quarantined movies and micrographs, and cards of examples of each reason."""
    lost = [loss for loss in run.losses if loss.unit != "particles" and loss.step not in run.side_branches]
    rejected = [loss for loss in lost if loss.kind != "quarantined"]
    quarantined = [loss for loss in lost if loss.kind == "quarantined"]
    estimators = list(run.by_step(ESTIMATES.name))
    cards = []
    for loss in examples(lost, run.params.max_pictures):
        pictures = [
            *spectra(run.folder, loss.item),
            *micrograph(run.folder, loss.item),
            *tracks(run.folder, loss.item),
        ]
        if loss.unit == "micrographs":
            pictures += ctf_pictures(run.folder, loss.item, estimators)
        cards.append(Card(loss.item, f"{loss.kind} by {loss.step}: {loss.reason}", pictures))
    limit = run.params.max_table_rows
    return {
        "rejected": [rejected[i] for i in spaced(range(len(rejected)), limit)],
        "quarantined": [quarantined[i] for i in spaced(range(len(quarantined)), limit)],
        "n_rejected": len(rejected),
        "n_quarantined": len(quarantined),
        "cards": [card for card in cards if card.pictures],
        "of": len(lost),
    }


def examples(losses: Sequence[Loss], limit: int) -> list[Loss]:
    """Return at most ``limit`` losses, taking each kind of reason in turn, so that frequent ones do not hide rare ones."""
    groups: dict[tuple[str, str], list[Loss]] = defaultdict(list)
    for loss in losses:
        groups[loss.step, reason_group(loss.reason)].append(loss)
    chosen: list[Loss] = []
    rank = 0
    while len(chosen) < min(limit, len(losses)):
        chosen += [group[rank] for group in groups.values() if rank < len(group)]
        rank += 1
    return chosen[:limit]


SECTION = Section(
    name="lost",
    anchors={"counts": "Counts", "rejected": "Rejected"},
    reads=(REJECTED, DESELECTED, ENTERING, MICROGRAPHS, COORDINATES, REFINED_PARTICLES, ESTIMATES),
    build=build,
)
