"""The log of a job, read while it grows."""

from __future__ import annotations

import os
from pathlib import Path

from cryopipe.workflow.terminal.job_log import JobLog

STAMP = "2026-01-02 03:04:05,678"


def write(path: Path, *entries: str, mode: str = "a") -> None:
    with path.open(mode) as stream:
        stream.writelines(f"{STAMP} {entry}\n" for entry in entries)


def test_progress_warnings_and_the_outcome_are_found_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    log = JobLog(path)
    assert log.news() == []
    write(path, "INFO pick: 1 of 3 items", "WARNING m1: too dark\nsecond line")
    assert log.news() == ["m1: too dark\nsecond line"]
    assert log.progress == "1 of 3 items"
    write(path, "INFO pick: 3 of 3 items", "INFO pick: done in 12.5 s on the cpu: 2 of 3 micrographs")
    assert log.news() == []
    assert (log.progress, log.seconds, log.outcome) == ("3 of 3 items", 12.5, "2 of 3 micrographs")


def test_an_entry_that_is_not_complete_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    log = JobLog(path)
    path.write_text(f"{STAMP} WARNING half of")
    assert log.news() == []
    path.write_text(f"{STAMP} WARNING half of it\n")
    assert log.news() == ["half of it"]


def test_an_error_is_kept_and_a_defect_with_its_traceback(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    write(path, "INFO Traceback (most recent call last):\n  line", "ERROR m1.tif: cut off. Copy it again.")
    log = JobLog(path)
    log.news()
    assert log.error == "m1.tif: cut off. Copy it again."
    write(path, "INFO Traceback (most recent call last):\n  line 7", "ERROR unexpected KeyError: 'x' (at m2)")
    log.news()
    assert log.error == "Traceback (most recent call last):\n  line 7\nunexpected KeyError: 'x' (at m2)"


def test_the_file_of_an_earlier_try_is_not_taken_for_this_one(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    write(path, "WARNING of the last try", "INFO pick: done in 9.0 s on the cpu: all")
    os.utime(path, (1e9, 1e9))
    log = JobLog(path, started=2e9)
    assert log.news() == []
    assert log.outcome == ""
    write(path, "WARNING of this one", mode="w")
    os.utime(path, (2e9, 2e9))
    assert log.news() == ["of this one"]


def test_a_log_that_starts_again_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    write(path, "WARNING a long line of the first try")
    log = JobLog(path)
    log.news()
    write(path, "WARNING retry", mode="w")
    assert log.news() == ["retry"]
