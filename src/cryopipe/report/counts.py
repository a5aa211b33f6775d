"""What went into each step of a run and what came out of it; where the counts do not add up, the report is refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopipe.errors import CryopipeError
from cryopipe.io.star import read_rejections, read_table
from cryopipe.steps import step_of
from cryopipe.steps import steps as all_steps

UNITS = ("movies", "micrographs", "particles")


@dataclass(frozen=True)
class Loss:
    """One item that a step did not pass on; ``step`` is its name, or name/run where it runs more than once."""

    step: str
    unit: str
    item: str
    kind: str
    reason: str


def unit_of(name: str) -> str:
    """Return what one item of a step is: "movies", "micrographs" or "particles".

    Raises
    ------
    CryopipeError
        The step counts nothing.
    """
    unit = step_of(name).counts
    if unit is None:
        raise CryopipeError(f"{name} is not a step that counts items. See its declaration in cryopipe.config.")
    return unit


def in_order(names: Collection[str]) -> list[str]:
    """Return names of steps in the order of the data flow; the runs of a step stay in their order."""
    order = list(all_steps())
    return sorted(names, key=lambda name: order.index(step_of(name).name))


def side_branches(steps: Collection[str], goes_on: Collection[str]) -> frozenset[str]:
    """Return those of ``steps`` that work on the same items as others and whose losses another step accounts for.

    What one branch of a fan-in fails on is not yet lost to the run: the step that joins the branches accounts for it, once,
    whatever number of branches failed. Of branches that no step joins, the one whose results go on accounts for itself.

    Parameters
    ----------
    steps : collection of str
        Steps of the run, and runs of steps.
    goes_on : collection of str
        Those whose results the next stage reads.
    """
    joined = {step_of(name).joins for name in steps}
    fan_ins = {name: step_of(name).branch_of for name in steps if step_of(name).branch_of}
    return frozenset(name for name, fan_in in fan_ins.items() if fan_in in joined or name not in goes_on)


def read_losses(files: Mapping[str, Sequence[Path]]) -> list[Loss]:
    """Read what steps did not pass on, ``{step: files}``: lists of rejections, or tables of particles with reasons."""
    losses = []
    for name, paths in files.items():
        unit = unit_of(name)
        for path in paths:
            if path.suffix == ".star":
                rows = read_table(path, "particles").rows
                losses += [
                    Loss(name, unit, str(r.rlnImageName), "rejected", str(r.crpReason)) for r in rows.itertuples()
                ]
            else:
                losses += [Loss(name, unit, row.item, row.kind, row.reason) for row in read_rejections(path)]
    return losses


def count(
    losses: Sequence[Loss], *, accepted: Mapping[str, int], steps: Sequence[str], goes_on: Collection[str] = ()
) -> tuple[dict[str, dict[str, int]], list[dict[str, Any]]]:
    """Count what went into and came out of the run and of each step.

    The steps of a unit follow one another, except `side_branches`: each of these takes in all that enters at its place,
    and takes nothing away from what the next step gets.

    Parameters
    ----------
    losses : sequence of Loss
        Every item that any step did not pass on. Apart from those of branches each item is lost once.
    accepted : mapping
        ``{"movies" | "micrographs" | "particles": number at the end of that unit's last step}``, counted from the tables
        that were passed on, independently of the losses.
    steps : sequence of str
        Steps of this run that count items, in order; a step that is done several times: its runs.
    goes_on : collection of str
        Those whose results the next stage reads.

    Returns
    -------
    counts : ``{unit: {"in", "accepted", "rejected"}}``
    rows : one dictionary per step: step, unit, in, accepted, rejected, reasons

    Raises
    ------
    CryopipeError
        The number that leaves movies is not the number that enters micrographs: something was lost without a record.
        Or an item is recorded as lost by two steps.
    """
    side = side_branches(steps, goes_on)
    _refuse_double_losses(losses, side)
    lost = Counter(loss.step for loss in losses)
    counts: dict[str, dict[str, int]] = {}
    rows: list[dict[str, Any]] = []
    for unit in UNITS:
        own = [step for step in steps if unit_of(step) == unit]
        rejected = sum(lost[step] for step in own if step not in side)
        entering = accepted.get(unit, 0) + rejected
        counts[unit] = {"in": entering, "accepted": accepted.get(unit, 0), "rejected": rejected}
        for step in own:
            reasons = Counter(reason_group(loss.reason) for loss in losses if loss.step == step)
            row = {
                "step": step,
                "unit": unit,
                "in": entering,
                "accepted": entering - lost[step],
                "rejected": lost[step],
            }
            rows.append(row | {"reasons": dict(reasons.most_common())})
            entering -= 0 if step in side else lost[step]
    if counts["movies"]["in"] and counts["movies"]["accepted"] != counts["micrographs"]["in"]:
        raise CryopipeError(
            f"the counts do not add up: {counts['movies']['accepted']} movies were accepted, but {counts['micrographs']['in']} "
            "micrographs entered the CTF stage. A table was changed by hand or a step lost an item; run with --forceall."
        )
    return counts, rows


def _refuse_double_losses(losses: Sequence[Loss], side: Collection[str]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for loss in losses:
        if loss.step in side:
            continue
        other = seen.setdefault((loss.unit, loss.item), loss.step)
        if other != loss.step:
            raise CryopipeError(
                f"the counts do not add up: {loss.item} is lost in {other} and again in {loss.step}. "
                "Tables of different runs are mixed; run with --forceall."
            )


def reason_group(reason: str) -> str:
    """Return a reason with its numbers left out, so that like reasons count together."""
    return re.sub(r"\d+(\.\d+)?", "…", reason)
