"""The numbers of a run: what went in and came out of each step, how good the map is, what it cost."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopipe.errors import CryopipeError
from cryopipe.io.star import read_rejections
from cryopipe.steps import steps as all_steps


@dataclass(frozen=True)
class Loss:
    """One item that a step did not pass on."""

    step: str
    unit: str
    item: str
    kind: str
    reason: str


def read_losses(files: Sequence[Path]) -> list[Loss]:
    """Read the rejection tables of the batches; a table's step is the name of its folder."""
    return [
        Loss(path.parent.name, unit_of(path.parent.name), row.item, row.kind, row.reason)
        for path in files
        for row in read_rejections(path)
    ]


def unit_of(step: str) -> str:
    """Return what one item of ``step`` is: "movies", "micrographs" or "particles".

    Raises
    ------
    CryopipeError
        There is no such step, or it counts nothing.
    """
    known = all_steps().get(step)
    if known is None or known.counts is None:
        raise CryopipeError(f"{step} is not a step that counts items. Look for it in cryopipe.config.")
    return known.counts


def is_branch(step: str) -> bool:
    """Tell whether ``step`` works on the same items as others, side by side.

    What such a step fails on is no loss of the run yet: the step that joins the branches accounts for it, once, whatever
    number of branches failed. A branch of which nothing joins the results (the only picker) accounts for itself.
    """
    fan_in = all_steps()[step].branch_of
    return any(other.joins == fan_in for other in all_steps().values() if fan_in)


def count(
    losses: Sequence[Loss], *, accepted: Mapping[str, int], steps: Sequence[str]
) -> tuple[dict[str, dict[str, int]], list[dict[str, Any]]]:
    """Count what went into and came out of the run and of each step.

    The steps of a unit stand one behind the other, except branches (`is_branch`): each of these takes in all that
    enters at its place, and takes nothing away from what the next step gets.

    Parameters
    ----------
    losses : sequence of Loss
        Every item that any step did not pass on. Apart from those of branches each item is lost once.
    accepted : mapping
        ``{"movies" | "micrographs" | "particles": number at the end of that unit's last step}``, counted from the tables
        that were passed on, independently of the losses.
    steps : sequence of str
        Steps of this run that count items, in order.

    Returns
    -------
    counts : ``{unit: {"in", "accepted", "rejected"}}``
    rows : one dictionary a step: step, unit, in, accepted, rejected, reasons

    Raises
    ------
    CryopipeError
        The number that leaves movies is not the number that enters micrographs: something was lost without a record.
        Or an item is recorded as lost by two steps.
    """
    _refuse_double_losses(losses)
    lost = Counter(loss.step for loss in losses)
    counts: dict[str, dict[str, int]] = {}
    rows: list[dict[str, Any]] = []
    for unit in ("movies", "micrographs", "particles"):
        own = [step for step in steps if unit_of(step) == unit]
        rejected = sum(lost[step] for step in own if not is_branch(step))
        entering = accepted.get(unit, 0) + rejected
        counts[unit] = {"in": entering, "accepted": accepted.get(unit, 0), "rejected": rejected}
        for step in own:
            reasons = Counter(_reason_group(loss.reason) for loss in losses if loss.step == step)
            row = {
                "step": step,
                "unit": unit,
                "in": entering,
                "accepted": entering - lost[step],
                "rejected": lost[step],
            }
            rows.append(row | {"reasons": dict(reasons.most_common())})
            entering -= 0 if is_branch(step) else lost[step]
    if counts["movies"]["in"] and counts["movies"]["accepted"] != counts["micrographs"]["in"]:
        raise CryopipeError(
            f"the counts do not add up: {counts['movies']['accepted']} movies were accepted, but {counts['micrographs']['in']} "
            "micrographs entered the CTF stage. A table was changed by hand or a step lost an item; run with --forceall."
        )
    return counts, rows


def _refuse_double_losses(losses: Sequence[Loss]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for loss in losses:
        if is_branch(loss.step):
            continue
        other = seen.setdefault((loss.unit, loss.item), loss.step)
        if other != loss.step:
            raise CryopipeError(
                f"the counts do not add up: {loss.item} is lost in {other} and again in {loss.step}. "
                "Tables of different runs are mixed; run with --forceall."
            )


def read_json(path: Path | None) -> dict[str, Any]:
    """Read a summary; an absent one (no truth, no model) is empty."""
    return json.loads(path.read_text()) if path is not None else {}


def costs(folder: Path) -> list[dict[str, Any]]:
    """Sum Snakemake's benchmark tables by step: jobs, seconds, CPU seconds, largest resident memory in MB."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*.tsv")):
        step = path.stem if not path.stem.startswith("batch_") else path.parent.name
        total = found.setdefault(step, {"step": step, "jobs": 0, "seconds": 0.0, "cpu_seconds": 0.0, "max_rss_MB": 0.0})
        with path.open(newline="") as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                total["jobs"] += 1
                total["seconds"] += _number(row.get("s"))
                total["cpu_seconds"] += _number(row.get("cpu_time"))
                total["max_rss_MB"] = max(total["max_rss_MB"], _number(row.get("max_rss")))
    return sorted(found.values(), key=lambda row: -row["seconds"])


def parameters(folder: Path) -> dict[str, dict[str, Any]]:
    """Return ``{step: parameters}`` as the provenance files beside the outputs record them."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*.provenance.json")):
        record = json.loads(path.read_text())
        found[record["step"]] = {key: value for key, value in record["params"].items() if key != "paths"}
    return found


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0  # Snakemake writes "-" or "NA" for a job that ended before it was sampled


def _reason_group(reason: str) -> str:
    """Return a reason with its numbers left out, so that like reasons count together."""
    return re.sub(r"\d+(\.\d+)?", "…", reason)
