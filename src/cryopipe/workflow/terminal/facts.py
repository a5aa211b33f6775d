"""Facts of a run for the terminal, sent through Snakemake's own logger when the plan is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake.logging import logger

from cryopipe.workflow.plan import Plan
from cryopipe.workflow.terminal.words import headline

#: Attribute of the log record to which the facts are attached.
ATTRIBUTE = "cryopipe_run"


@dataclass(frozen=True)
class RunFacts:
    """A run, as the terminal shows it.

    Attributes
    ----------
    headline : str
        Name and images of the run.
    results : Path
        Folder of the run.
    batches : int
        Number of batches.
    report : str
        File with the numbers of the report, relative to ``results``.
    """

    headline: str
    results: Path
    batches: int
    report: str = "report/report/report.json"


def announce(plan: Plan) -> None:
    """Send the facts of this run to the terminal."""
    logger.info("", extra={ATTRIBUTE: RunFacts(headline(plan), plan.results, len(plan.batches))})


def facts_of(record: Any) -> RunFacts | None:
    """Return the facts that are attached to a log record, or None."""
    found = getattr(record, ATTRIBUTE, None)
    return found if isinstance(found, RunFacts) else None
