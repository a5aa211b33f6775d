"""Snakemake's logger plugin ``cryopipe``: makes lines that a person can read from the events of a run."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from snakemake.logging import DefaultFormatter
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from cryopipe.workflow.terminal.chatter import INTERRUPTED, NOTHING_TO_DO, is_chatter
from cryopipe.workflow.terminal.dry_run import dry_run_lines
from cryopipe.workflow.terminal.ending import failed_lines, result_lines, stopped_lines
from cryopipe.workflow.terminal.facts import RunFacts, facts_of
from cryopipe.workflow.terminal.job_log import TERMINAL_VARIABLE
from cryopipe.workflow.terminal.jobs import Job, job_of
from cryopipe.workflow.terminal.screen import Screen
from cryopipe.workflow.terminal.words import duration

#: Time between two readings of the logs of running jobs, and between two lines of progress in a file, s.
_LOOK_S, _RARELY_S = 1.0, 600.0
#: The rule that only requests the results.
_TARGET = "all"


class LogHandler(LogHandlerBase):
    """Handler of all records of a Snakemake process that plans and starts jobs."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        """Start with an empty run."""
        settings = self.common_settings
        self._screen = Screen(sys.stdout if settings.stdout else sys.stderr, colour=not settings.nocolor)
        self._plain = DefaultFormatter(settings.quiet, settings.show_failed_logs)
        self._quiet = {kind.name.lower() for kind in settings.quiet or ()}
        self._run: RunFacts | None = None
        self._jobs: dict[int, Job] = {}
        self._failed: dict[int, Job] = {}
        self._stats: dict[str, int] = {}
        self._reasons: defaultdict[str, list[str]] = defaultdict(list)
        self._errors: list[str] = []
        self._said: set[str] = set()
        self._provided: dict[str, str] = {}
        self._done = 0
        self._here = Path.cwd()
        self._interrupted = self._nothing_to_do = self._closed = False
        self._start = self._told = time.time()
        self._ended = threading.Event()
        os.environ[TERMINAL_VARIABLE] = "logs"
        logging.getLogger("cryopipe").addHandler(self)  # for warnings of the plan of the run
        threading.Thread(target=self._look_now_and_then, daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Show the content of a record, now or at the end."""
        try:
            if self.common_settings.verbose or (
                self.common_settings.debug_dag and getattr(record, "event", "") == LogEvent.DEBUG_DAG
            ):
                self._screen.line(self._plain.format(record))
            self._take(record)
        except Exception:  # a terminal that fails must not stop a run
            self.handleError(record)

    def _take(self, record: Any) -> None:
        if (facts := facts_of(record)) is not None:
            self._run = facts
            return
        event = getattr(record, "event", None)
        known = {
            LogEvent.RUN_INFO: self._planned,
            LogEvent.RESOURCES_INFO: self._resources,
            LogEvent.JOB_INFO: self._started,
            LogEvent.JOB_FINISHED: self._finished,
            LogEvent.JOB_ERROR: self._job_failed,
            LogEvent.GROUP_ERROR: self._group_failed,
        }
        if event in known:
            known[event](record)
        elif event in (None, LogEvent.ERROR):
            self._message(record, record.getMessage() if record.msg else "")

    def _message(self, record: logging.LogRecord, said: str) -> None:
        if said.startswith(INTERRUPTED):
            self._interrupted = True
            self._line("stopping the running jobs")
        elif said.startswith(NOTHING_TO_DO):
            self._nothing_to_do = True
            self._line(said)
        elif is_chatter(said) or record.levelno < logging.INFO:
            return
        elif record.levelno >= logging.ERROR:
            self._errors.append(said)
        elif record.levelno == logging.WARNING:
            self._warn("", said)
        else:
            self._line(said)

    def _planned(self, record: Any) -> None:
        self._stats = {name: count for name, count in record.stats.items() if name not in ("total", _TARGET)}
        if self.common_settings.dryrun:
            return
        total = sum(self._stats.values())
        if not total:
            self._line(f"{NOTHING_TO_DO}: all requested results are there")
            return
        where = " and ".join(f"{amount} {what}" for what, amount in self._provided.items())
        self._line(self._run.headline if self._run else "a workflow")
        self._line(f"{total} {'job' if total == 1 else 'jobs'} to do{f' on {where}' if where else ''}")

    def _resources(self, record: Any) -> None:
        if (cores := getattr(record, "cores", None)) is not None:
            self._provided["core" if cores == 1 else "cores"] = str(cores)
        gpus = getattr(record, "provided_resources", {}).get("gpu")
        if gpus is not None and (amount := int(getattr(gpus, "value", gpus) or 0)):
            self._provided["GPU" if amount == 1 else "GPUs"] = str(amount)

    def _started(self, record: Any) -> None:
        folder = self._run.results if self._run else Path.cwd()
        if not self._quiet & {"rules", "reason"}:
            self._reasons[record.rule_name].append(record.reason)
        if not self.common_settings.dryrun:
            self._jobs[record.jobid] = job_of(record, folder, self._run.batches if self._run else 0)

    def _finished(self, record: Any) -> None:
        job = self._jobs.pop(record.job_id, None)
        self._failed.pop(record.job_id, None)
        if job is not None and job.makes:
            self._look(job, ended=True)
            self._done += 1
            seconds = job.log.seconds if job.log.seconds is not None else time.time() - job.started
            self._job_line(job, job.log.outcome, duration(seconds))

    def _job_failed(self, record: Any) -> None:
        job = self._jobs.pop(record.jobid, None) or job_of(record, Path.cwd(), 0)
        if self._interrupted:
            return
        self._look(job, ended=True)
        known = {str(path) for path in job.logs}
        job.logs += [path for path in map(Path, record.log[1:]) if str(path) not in known]
        job.details = {"message": record.rule_msg, **record.aux} if hasattr(record, "aux") else {}
        self._failed[record.jobid] = job
        self._job_line(job, "FAILED", duration(time.time() - job.started), "red")

    def _group_failed(self, record: Any) -> None:
        for info in record.job_error_info:
            self._job_failed(logging.makeLogRecord({"created": time.time(), **info}))

    def _look_now_and_then(self) -> None:
        while not self._ended.wait(_LOOK_S):
            self.acquire()
            try:
                for job in list(self._jobs.values()):
                    self._look(job)
                self._say_how_far()
            except Exception as error:  # a log that cannot be shown must not stop a run
                self._errors.append(f"the terminal: {error!r}")
                return
            finally:
                self.release()

    def _look(self, job: Job, *, ended: bool = False) -> None:
        for warning in job.log.news(ended=ended):
            self._warn(job.title, warning.removeprefix(f"{job.name}: "))

    def _say_how_far(self) -> None:
        now = time.time()
        running = [job.status(now) for job in self._jobs.values() if job.makes]
        if not running or "progress" in self._quiet or self._closed:
            return
        self._screen.status(f"{self._number()}  {' · '.join(running)}")
        if not self._screen.changes and now - self._told > _RARELY_S:
            self._line(f"{self._number()}  after {duration(now - self._start)}: {'; '.join(running)}")

    def _warn(self, who: str, said: str) -> None:
        key = f"{who.split(',')[0]}: {said}"
        if key not in self._said:
            self._said.add(key)
            self._screen.line(f"warning: {f'{who}: ' if who else ''}{said}", "yellow")

    def _job_line(self, job: Job, said: str, took: str, colour: str = "") -> None:
        if colour or "rules" not in self._quiet:
            self._screen.line(f"{self._number()}  {job.name:<22}  {job.batch:<12}  {took:>6}  {said}", colour)
        self._told = time.time()

    def _number(self) -> str:
        total = str(sum(self._stats.values()))
        return f"[{self._done:>{len(total)}}/{total}]"

    def _line(self, text: str) -> None:
        self._told = time.time()
        if "all" not in self._quiet and "progress" not in self._quiet:
            self._screen.line(text)

    def close(self) -> None:
        """Write the last lines. Errors and failures are at the very end."""
        self._ended.set()
        logging.getLogger("cryopipe").removeHandler(self)
        if not self._closed:
            self._closed = True
            for text in self._last_lines():
                self._screen.line(text, "red" if self._failed or self._errors else "")
            self._screen.status("")
        super().close()

    def _last_lines(self) -> list[str]:
        total = sum(self._stats.values())
        if self._interrupted:
            return stopped_lines(self._done, total)
        failed = failed_lines(self._failed.values(), self._done, total, self._here) if self._failed else []
        if failed or self._errors:
            return [*self._errors, *failed]
        if self.common_settings.dryrun and self._stats:
            return [*([self._run.headline] if self._run else []), *dry_run_lines(self._stats, self._reasons)]
        if self._run and (self._nothing_to_do or (self._stats and self._done)) and "all" not in self._quiet:
            took = [f"done in {duration(time.time() - self._start)}"] if self._done else []
            reported = self._nothing_to_do or "report" in self._stats
            return [*took, *result_lines(self._run, self._here, reported=reported)]
        return []
