"""The lines of a run, from the records that Snakemake sends its loggers."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

from cryopipe.workflow.terminal.facts import ATTRIBUTE, RunFacts
from cryopipe.workflow.terminal.handler import LogHandler

STAMP = "2026-01-02 03:04:05,678"


class Stream(io.StringIO):
    """A file, or a terminal."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal


class Run:
    """A run whose records and logs the test writes."""

    def __init__(self, folder: Path, stream: Stream, **settings: Any) -> None:
        said = {"stdout": False, "nocolor": True, "quiet": None, "dryrun": False, "verbose": False}
        common = SimpleNamespace(**said | {"debug_dag": False, "show_failed_logs": True} | settings)
        self.folder, self.stream, self.number = folder, stream, 0
        self.handler = LogHandler(common, None)
        self.send("", **{ATTRIBUTE: RunFacts("run tiny: 6 movies in 2 batches", folder, 2)})

    def send(self, said: str | None, level: int = logging.INFO, **fields: Any) -> None:
        self.handler.handle(logging.makeLogRecord({"msg": said, "levelno": level, **fields}))

    def plan(self, **jobs: int) -> None:
        self.send("", event=LogEvent.RUN_INFO, stats=jobs | {"all": 1, "total": sum(jobs.values()) + 1})

    def start(self, rule: str, *entries: str, output: bool = True, reason: str = "", **wildcards: str) -> int:
        self.number += 1
        name = "_".join([rule, *wildcards.values()])
        self.write(name, *entries)
        made = ["out.star"] if output else []
        fields = {"jobid": self.number, "rule_name": rule, "wildcards": wildcards, "output": made, "reason": reason}
        self.send("", event=LogEvent.JOB_INFO, log=[f"{name}.log"], created=time.time(), **fields)
        return self.number

    def write(self, name: str, *entries: str) -> None:
        with (self.folder / f"{name}.log").open("a") as stream:
            stream.writelines(f"{STAMP} {entry}\n" for entry in entries)

    def finish(self, number: int) -> None:
        self.send(f"Finished jobid: {number}", event=LogEvent.JOB_FINISHED, job_id=number)

    def fail(self, number: int, rule: str, **aux: Any) -> None:
        fields = {"jobid": number, "rule_name": rule, "rule_msg": None, "output": ["out.star"], "log": [f"{rule}.log"]}
        self.send("Error", logging.ERROR, event=LogEvent.JOB_ERROR, aux=aux, **fields)

    def end(self) -> list[str]:
        self.handler.close()
        return self.stream.getvalue().splitlines()


Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    before = dict(os.environ)

    def started(*, terminal: bool = False, **settings: Any) -> Run:
        stream = Stream()
        stream.terminal = terminal
        monkeypatch.setattr(sys, "stdout" if settings.get("stdout") else "stderr", stream)
        return Run(tmp_path, stream, **settings)

    yield started
    os.environ.clear()
    os.environ.update(before)


def test_snakemake_finds_the_logger_by_its_name() -> None:
    assert LoggerPluginRegistry().get_plugin("cryopipe").log_handler is LogHandler  # type: ignore[attr-defined]


def test_a_job_that_ends_is_one_line_with_its_batch_seconds_and_counts(start: Start) -> None:
    run = start()
    run.plan(align_movies=2, consensus_ctf=1)
    done = "INFO align_movies: done in 49.1 s on the cpu: 5 of 6 movies"
    run.finish(run.start("align_movies", "INFO align_movies: 1 of 6 items", done, batch="batch_0002"))
    run.finish(run.start("consensus_ctf", run="defocus", batch="batch_0001"))
    run.finish(run.start("all", output=False))
    lines = [" ".join(line.split()) for line in run.end()]
    assert lines[1:3] == ["3 jobs to do", "[1/3] align_movies batch 2 of 2 49 s 5 of 6 movies"]
    assert lines[3].startswith("[2/3] consensus_ctf/defocus batch 1 of 2 ")
    assert not [line for line in lines if "all" in line.split()]


def test_a_warning_of_a_job_is_shown_once_with_the_name_of_its_step(start: Start) -> None:
    run = start()
    run.plan(align_movies=2)
    for batch in ("batch_0001", "batch_0002"):
        run.finish(run.start("align_movies", "WARNING align_movies: the gain is old", batch=batch))
    run.send("No SLURM account given", logging.WARNING)
    warnings = [line for line in run.end() if line.startswith("warning")]
    assert warnings == ["warning: align_movies, batch 1 of 2: the gain is old", "warning: No SLURM account given"]


def test_a_failure_is_told_last_with_its_step_item_reason_and_log(start: Start) -> None:
    run = start()
    run.plan(pick=1, align_movies=1)
    failing = run.start("pick", "ERROR pick: m1.mrc: cut off. Copy it again.")
    other = run.start("align_movies", batch="batch_0001")
    run.fail(failing, "pick")
    run.send("WorkflowError:\nAt least one job did not complete successfully.", logging.ERROR, event=LogEvent.ERROR)
    run.finish(other)
    lines = run.end()
    told = ["", "pick failed", "  m1.mrc: cut off. Copy it again.", f"  log: {run.folder}/pick.log", ""]
    assert lines[-6:-1] == told
    assert lines[-1].startswith("1 of 2 jobs are done and kept")
    assert not [line for line in lines if "WorkflowError" in line]


def test_a_job_that_dies_without_a_word_shows_the_end_of_its_log_and_what_the_executor_knows(start: Start) -> None:
    run = start()
    run.plan(pick=1)
    run.fail(run.start("pick", "INFO pick: 3 of 9 items"), "pick", external_jobid="77")
    text = "\n".join(run.end())
    assert "pick: 3 of 9 items" in text
    assert "external_jobid: 77" in text


def test_a_job_that_succeeds_when_it_is_tried_again_is_no_failure(start: Start) -> None:
    run = start()
    run.plan(pick=1)
    number = run.start("pick", "ERROR pick: node lost")
    run.fail(number, "pick")
    run.number -= 1
    assert run.start("pick", "INFO pick: done in 1.0 s on the cpu: fine") == number
    run.finish(number)
    assert "pick failed" not in run.end()


def test_the_last_lines_are_resolution_counts_and_the_path_of_the_report(start: Start) -> None:
    run = start()
    run.plan(report=1)
    (run.folder / "report" / "report").mkdir(parents=True)
    (run.folder / "report" / "report" / "report.json").write_text(
        '{"map": {"fsc0143_A": 3.902}, "truth": null, "counts": {"picked": 420,'
        ' "movies": {"in": 12, "accepted": 11}, "micrographs": {"in": 11, "accepted": 10},'
        ' "particles": {"in": 420, "accepted": 330}}}'
    )
    run.finish(run.start("report"))
    assert run.end()[-3:] == [
        "resolution: 3.90 Å (half maps, FSC 0.143)",
        "counts: 11 of 12 movies, 10 of 11 micrographs, 420 picks, 330 particles used",
        f"report: {run.folder}/report/report/report.html",
    ]


def test_a_terminal_has_one_line_that_changes_and_a_file_has_none(start: Start) -> None:
    for terminal in (True, False):
        run = start(terminal=terminal)
        run.plan(align_movies=1)
        run.start("align_movies", "INFO align_movies: 2 of 6 items", batch="batch_0001")
        patience = time.monotonic() + 60
        while terminal and "2 of 6 items" not in run.stream.getvalue() and time.monotonic() < patience:
            time.sleep(0.05)
        assert ("align_movies, batch 1 of 2: 2 of 6 items" in run.stream.getvalue()) == terminal
        run.handler.close()


def test_after_an_interrupt_the_last_line_says_what_is_kept(start: Start) -> None:
    run = start()
    run.plan(pick=2)
    run.finish(run.start("pick", batch="batch_0001"))
    number = run.start("pick", "INFO pick: stopped by a signal", batch="batch_0002")
    run.send("Terminating processes on user request, this might take some time.")
    run.fail(number, "pick")
    run.send("At least one job did not complete successfully.", logging.ERROR)
    assert run.end()[-1].startswith("stopped at your request: 1 of 2 jobs are done and kept")


def test_an_unknown_message_is_shown_and_chatter_is_not(start: Start) -> None:
    run = start()
    for said in ("Building DAG of jobs...", "Unlocked working directory.", "Using shell: /usr/bin/bash", None):
        run.send(said)
    assert run.end() == ["Unlocked working directory."]


def test_an_error_before_any_job_is_the_last_line(start: Start) -> None:
    run = start()
    run.send("WorkflowError in file Snakefile:\nno such key", logging.ERROR, event=LogEvent.ERROR)
    run.send("Unlocked working directory.")
    assert run.end()[-1] == "no such key"


def test_quiet_leaves_out_the_lines_of_jobs_and_keeps_warnings_and_failures(start: Start) -> None:
    run = start(quiet={Quietness.RULES, Quietness.PROGRESS})
    run.plan(pick=2)
    run.finish(run.start("pick", "WARNING pick: few", batch="batch_0001"))
    run.fail(run.start("pick", "ERROR pick: m1.mrc: cut off", batch="batch_0002"), "pick")
    lines = run.end()
    assert lines[0] == "warning: pick, batch 1 of 2: few"
    assert "  m1.mrc: cut off" in lines
    assert not [line for line in lines if "[1/2]" in line and "FAILED" not in line]
