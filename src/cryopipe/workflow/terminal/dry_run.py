"""A dry run: one line for each step that would run, with its number of jobs and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

#: Snakemake's reason for a job that follows another one, with a small first letter.
_FOLLOWS = "input files updated by another job"


def dry_run_lines(jobs: Mapping[str, int], reasons: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a table of the steps.

    Parameters
    ----------
    jobs : mapping
        ``{rule: number of jobs}``.
    reasons : mapping
        ``{rule: Snakemake's reasons for its jobs}``.
    """
    width = max(map(len, jobs), default=0)
    rows = [f"{name:<{width}}  {count:>4}  {_why(reasons.get(name, ()))}".rstrip() for name, count in jobs.items()]
    return [f"{sum(jobs.values())} jobs would run; this was a dry run", f"{'step':<{width}}  jobs  why", *rows]


def _why(reasons: Sequence[str]) -> str:
    """Return the kinds of reasons, each once and without the files."""
    parts = [part for reason in reasons for part in reason.split("; ")]
    kinds = [re.split(r"[:\n]", part, maxsplit=1)[0].strip().rstrip(".") for part in parts]
    found = dict.fromkeys(kind[:1].lower() + kind[1:] for kind in kinds if kind)
    own = [kind for kind in found if kind != _FOLLOWS]
    return "; ".join(own) if own else "follows a step that runs" if found else ""
