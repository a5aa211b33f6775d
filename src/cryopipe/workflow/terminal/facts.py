"""What the terminal has to know of a run, told through Snakemake's own logger when the plan is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake.logging import logger

from cryopipe.workflow.plan import Plan
from cryopipe.workflow.terminal.words import headline

#: Attribute of the log record that carries the facts.
ATTRIBUTE = "cryopipe_run"


@dataclass(frozen=True)
class RunFacts:
    """A run, as the terminal shows it.

    Attributes
    ----------
    headline : str
        What it works on.
    results : Path
        Its folder.
    batches : int
        How many there are.
    report : str
        The report's numbers, relative to ``results``.
    """

    headline: str
    results: Path
    batches: int
    report: str = "report/report/report.json"


def announce(plan: Plan) -> None:
    """Tell the terminal which run this is."""
    logger.info("", extra={ATTRIBUTE: RunFacts(headline(plan), plan.results, len(plan.batches))})


def facts_of(record: Any) -> RunFacts | None:
    """Return the facts that a log record carries."""
    found = getattr(record, ATTRIBUTE, None)
    return found if isinstance(found, RunFacts) else None
