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
        "batch 2 of 3". Empty for a step that has one job.
    started : float
        Time of the start, s since 1970.
    logs : list of Path
        Log files, first that of the step.
    makes : bool
        Whether it has outputs. A target such as ``all`` has none.
    log : JobLog
        Content of the first log.
    details : mapping
        Information of the executor about a failure.
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
        """Return the progress of the job."""
        return f"{self.title}: {self.log.progress or 'starting'} ({duration(now - self.started)})"


def job_of(record: Any, folder: Path, batches: int) -> Job:
    """Return the job that a record of Snakemake describes.

    Parameters
    ----------
    record : logging.LogRecord
        Record of an event JOB_INFO or JOB_ERROR.
    folder : Path
        Folder to which paths are relative.
    batches : int
        Number of batches of the run. 0: not known.
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
