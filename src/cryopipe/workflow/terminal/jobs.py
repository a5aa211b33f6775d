"""The jobs of a run, from the records of Snakemake's logger."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryopipe.workflow.terminal.job_log import JobLog
from cryopipe.workflow.terminal.words import duration


@dataclass
class Job:
    """A job that runs, has run or has failed.

    Attributes
    ----------
    name : str
        ``<step>``, or ``<step>/<run>``.
    batch : str
        "batch 2 of 3"; empty for a step that has one job.
    started : float
        s since 1970.
    logs : list of Path
        The log of the step first.
    makes : bool
        Whether it has outputs: a target such as ``all`` has none.
    log : JobLog
        What the first log says.
    details : mapping
        What the executor knows of its failure.
    """

    name: str
    batch: str
    started: float
    logs: list[Path]
    makes: bool
    log: JobLog
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Name and batch."""
        return f"{self.name}, {self.batch}" if self.batch else self.name

    def status(self, now: float) -> str:
        """Return how far the job is."""
        return f"{self.title}: {self.log.progress or 'starting'} ({duration(now - self.started)})"


def job_of(record: Any, folder: Path, batches: int) -> Job:
    """Return the job that a record of Snakemake tells of.

    Parameters
    ----------
    record : logging.LogRecord
        Of the events JOB_INFO or JOB_ERROR.
    folder : Path
        Where relative paths start.
    batches : int
        Of the run; 0: not known.
    """
    wildcards = dict(getattr(record, "wildcards", None) or {})
    run = f"/{wildcards['run']}" if "run" in wildcards else ""
    number = re.fullmatch(r"batch_0*(\d+)", str(wildcards.get("batch", "")))
    of = f" of {batches}" if batches else ""
    logs = [folder / str(path) for path in record.log]
    return Job(
        name=f"{record.rule_name}{run}",
        batch=f"batch {number[1]}{of}" if number else "",
        started=record.created,
        logs=logs,
        makes=bool(record.output),
        log=JobLog(logs[0] if logs else folder / "no log", record.created),
    )
