"""How many items entered and left each step of a run. If the counts do not add up, the report is not written."""

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
    """One item that a step did not pass on. ``step`` is the name of the step, or name/run if it runs more than once."""

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
        The step does not count items.
    """
    unit = step_of(name).counts
    if unit is None:
        raise CryopipeError(f"{name} is not a step that counts items. See its declaration in cryopipe.config.")
    return unit


def in_order(names: Collection[str]) -> list[str]:
    """Return names of steps in the order of the data flow. The runs of a step keep their order."""
    order = list(all_steps())
    return sorted(names, key=lambda name: order.index(step_of(name).name))


def side_branches(steps: Collection[str], goes_on: Collection[str]) -> frozenset[str]:
    """Return those of ``steps`` that run beside others on the same items, and whose losses another step counts.

    An item on which one branch of a fan-in fails is not yet lost to the run. The step that joins the branches counts it
    once, however many branches failed. If no step joins the branches, only the branch whose results go on is counted.

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
    """Read the items that steps did not pass on from ``{step: files}``: lists of rejections, or tables of particles."""
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
    """Count the items that enter and leave the run and each step.

    The steps of a unit follow one another, except `side_branches`. Each of these gets all items that enter at its place,
    and its losses do not reduce what the next step gets.

    Parameters
    ----------
    losses : sequence of Loss
        All items that any step did not pass on. Apart from side branches, each item is lost once.
    accepted : mapping
        ``{"movies" | "micrographs" | "particles": number after the last step of that unit}``, counted from the tables
        that were passed on, independently of the losses.
    steps : sequence of str
        Steps of this run that count items, in order. A step that is done several times is listed by its runs.
    goes_on : collection of str
        Those whose results the next stage reads.

    Returns
    -------
    counts : ``{unit: {"in", "accepted", "rejected"}}``
    rows : one dictionary per step: step, unit, in, accepted, rejected, reasons

    Raises
    ------
    CryopipeError
        The number of movies at the end is not the number of micrographs at the start, so items were lost without a
        record. Or two steps recorded the same item as lost.
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
            "micrographs entered the CTF stage. A table was changed by hand, or a step lost an item. Run with --forceall."
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
    """Return a reason without its numbers, so that similar reasons are counted together."""
    return re.sub(r"\d+(\.\d+)?", "…", reason)
