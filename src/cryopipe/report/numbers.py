"""The numbers of a run: what went in and came out of each step, how good the map is, what it cost."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopipe.errors import CryopipeError
from cryopipe.io.star import read_rejections
from cryopipe.steps import name_of, step_of
from cryopipe.steps import steps as steps_of_all


@dataclass(frozen=True)
class Loss:
    """One item that a step did not pass on."""

    step: str
    unit: str
    item: str
    kind: str
    reason: str


def read_losses(files: Sequence[Path]) -> list[Loss]:
    """Read the rejection tables of the batches; a table's folder tells its step, and its run."""
    return [
        Loss(name, unit_of(name), row.item, row.kind, row.reason)
        for path in files
        for name in [name_of(path)]
        for row in read_rejections(path)
    ]


def unit_of(step: str) -> str:
    """Return what one item of ``step`` (``<step>`` or ``<step>/<run>``) is: "movies", "micrographs" or "particles".

    Raises
    ------
    CryopipeError
        The step counts nothing.
    """
    unit = step_of(step).counts
    if unit is None:
        raise CryopipeError(f"{step} is not a step that counts items. See its declaration in cryopipe.config.")
    return unit


def is_branch(step: str) -> bool:
    """Tell whether another step makes one result of what ``step`` and others say of the same items.

    What such a step fails on is no loss of the run yet: the step that joins the branches accounts for it, once, whatever
    number of branches failed.
    """
    fan_in = step_of(step).branch_of
    return bool(fan_in) and any(other.joins == fan_in for other in steps_of_all().values())


def count(
    losses: Sequence[Loss], *, accepted: Mapping[str, int], steps: Sequence[str], aside: Collection[str] = ()
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
        Steps of this run that count items, in order; a step that is done several times: its runs.
    aside : collection of str
        Steps whose result does not go on (a picker beside the one whose coordinates are taken): they are shown, and
        take nothing away, as branches do.

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

    def beside(step: str) -> bool:
        return step in aside or is_branch(step)

    _refuse_double_losses([loss for loss in losses if not beside(loss.step)])
    lost = Counter(loss.step for loss in losses)
    counts: dict[str, dict[str, int]] = {}
    rows: list[dict[str, Any]] = []
    for unit in ("movies", "micrographs", "particles"):
        own = [step for step in steps if unit_of(step) == unit]
        rejected = sum(lost[step] for step in own if not beside(step))
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
            entering -= 0 if beside(step) else lost[step]
    if counts["movies"]["in"] and counts["movies"]["accepted"] != counts["micrographs"]["in"]:
        raise CryopipeError(
            f"the counts do not add up: {counts['movies']['accepted']} movies were accepted, but {counts['micrographs']['in']} "
            "micrographs entered the CTF stage. A table was changed by hand or a step lost an item; run with --forceall."
        )
    return counts, rows


def _refuse_double_losses(losses: Sequence[Loss]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for loss in losses:
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
        _, *names = path.relative_to(folder).with_suffix("").parts
        step = "/".join(name for name in names if not name.startswith("batch_"))
        total = found.setdefault(step, {"step": step, "jobs": 0, "seconds": 0.0, "cpu_seconds": 0.0, "max_rss_MB": 0.0})
        with path.open(newline="") as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                total["jobs"] += 1
                total["seconds"] += _number(row.get("s"))
                total["cpu_seconds"] += _number(row.get("cpu_time"))
                total["max_rss_MB"] = max(total["max_rss_MB"], _number(row.get("max_rss")))
    return sorted(found.values(), key=lambda row: -row["seconds"])


def parameters(folder: Path) -> dict[str, dict[str, Any]]:
    """Return ``{step or step/run: parameters}`` as the provenance files beside the outputs record them."""
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
