"""What did not pass: rejected and quarantined movies and micrographs with their reasons and pictures."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryopipe.config.report import Report
from cryopipe.report.drawing.cards import Card, ctf_pictures, micrograph, spectra, tracks
from cryopipe.report.drawing.tables import spaced
from cryopipe.report.numbers import Loss, is_branch


def lost_section(losses: Sequence[Loss], run: Path, params: Report, steps: Sequence[str]) -> dict[str, Any]:
    """Return the lists of rejected and quarantined items, and cards of some of each reason.

    Parameters
    ----------
    losses : sequence of Loss
        Of the whole run.
    run : Path
        Folder of the run.
    params : Report
        How many rows and pictures.
    steps : sequence of str
        Steps that estimated CTFs.
    """
    lost = [loss for loss in losses if loss.unit != "particles" and not is_branch(loss.step)]
    rejected = [loss for loss in lost if loss.kind != "quarantined"]
    quarantined = [loss for loss in lost if loss.kind == "quarantined"]
    cards = []
    for loss in examples(lost, params.max_pictures):
        pictures = [*spectra(run, loss.item), *micrograph(run, loss.item), *tracks(run, loss.item)]
        if loss.unit == "micrographs":
            pictures += ctf_pictures(run, loss.item, steps)
        cards.append(Card(loss.item, f"{loss.kind} by {loss.step}: {loss.reason}", pictures))
    return {
        "rejected": [rejected[i] for i in spaced(range(len(rejected)), params.max_table_rows)],
        "quarantined": [quarantined[i] for i in spaced(range(len(quarantined)), params.max_table_rows)],
        "n_rejected": len(rejected),
        "n_quarantined": len(quarantined),
        "cards": [card for card in cards if card.pictures],
        "of": len(lost),
    }


def examples(losses: Sequence[Loss], count: int) -> list[Loss]:
    """Return at most ``count`` losses, each kind of reason in turn, so that a frequent one does not hide a rare one."""
    groups: dict[tuple[str, str], list[Loss]] = defaultdict(list)
    for loss in losses:
        groups[loss.step, re.sub(r"\d+(\.\d+)?", "…", loss.reason)].append(loss)
    chosen: list[Loss] = []
    rank = 0
    while len(chosen) < min(count, len(losses)):
        chosen += [group[rank] for group in groups.values() if rank < len(group)]
        rank += 1
    return chosen[:count]
