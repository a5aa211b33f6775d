"""The last lines of a run: the results, from the numbers of its report, or the failures and what to do about them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cryopipe.workflow.terminal.facts import RunFacts
from cryopipe.workflow.terminal.jobs import Job

#: Number of failures that are shown in full, because hundreds of batches may fail in the same way.
_IN_FULL = 5


def shown(path: Path, here: Path) -> str:
    """Return a path as a person in the folder ``here`` would type it: relative, if it is below ``here``."""
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def result_lines(run: RunFacts, here: Path, *, reported: bool) -> list[str]:
    """Return resolution, counts and the path of the report of a run, or its folder if no report was made (``reported``)."""
    path = run.results / run.report
    try:
        numbers = json.loads(path.read_text()) if reported else None
    except (OSError, json.JSONDecodeError):
        numbers = None
    if numbers is None:
        return [f"results: {shown(run.results, here)}"]
    page = shown(path.with_suffix(".html"), here)
    return [*filter(None, (_resolution(numbers), _counts(numbers["counts"]))), f"report: {page}"]


def _resolution(numbers: dict[str, Any]) -> str:
    # a run without simulated movies has no truth
    whole, truth = (numbers.get(part) or {} for part in ("map", "truth"))
    found = [
        (whole.get("fsc0143_A"), "half maps, FSC 0.143"),
        (truth.get("fsc05_A"), "truth, FSC 0.5"),
        (truth.get("fsc05_true_poses_A"), "map from true poses, FSC 0.5"),
    ]
    said = ", ".join(f"{value:.2f} Å ({what})" for value, what in found if isinstance(value, int | float))
    return f"resolution: {said}" if said else ""


def _counts(counts: dict[str, Any]) -> str:
    of = {unit: counts[unit] for unit in ("movies", "micrographs", "particles") if counts.get(unit, {}).get("in")}
    said = [f"{found['accepted']} of {found['in']} {unit}" for unit, found in of.items() if unit != "particles"]
    if "particles" in of:
        said += [
            f"{counts.get('picked', of['particles']['in'])} picks",
            f"{of['particles']['accepted']} particles used",
        ]
    return f"counts: {', '.join(said)}" if said else ""


def failure_lines(job: Job, here: Path) -> list[str]:
    """Return what is known about a failed job: the reason, the item, what to do, and the path of its log."""
    why = job.log.error or job.log.last_lines() or "it ended without a message: stopped from outside, or out of memory"
    lines = [f"{job.title} failed", *(f"  {line}" for line in why.removeprefix(f"{job.name}: ").splitlines())]
    if not job.log.error:
        lines += [f"  {key}: {value}" for key, value in job.details.items() if value]
    return [*lines, *(f"  log: {shown(path, here)}" for path in job.logs)]


def stopped_lines(done: int, total: int) -> list[str]:
    """Return the last lines after Ctrl-C."""
    return [f"stopped at your request: {done} of {total} jobs are done and kept. The same command continues from here."]


def failed_lines(failed: Iterable[Job], done: int, total: int, here: Path) -> list[str]:
    """Return the last lines if jobs failed: each failure, and how to continue.

    Parameters
    ----------
    failed : iterable of Job
        Jobs that still failed after all attempts.
    done, total : int
        Number of jobs that are done, and of all jobs of the run.
    here : Path
        Folder in which Snakemake was started.
    """
    jobs = list(failed)
    lines = [line for job in jobs[:_IN_FULL] for line in ["", *failure_lines(job, here)]]
    rest = [f"{job.title} failed; log: {shown(job.log.path, here)}" for job in jobs[_IN_FULL:]]
    return [
        *lines,
        *(["", *rest] if rest else []),
        "",
        f"{done} of {total} jobs are done and kept. Remove the cause and give the same command again.",
    ]
