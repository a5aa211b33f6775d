"""What Snakemake, started as a user does, writes on the terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cryopipe.config.load import load_config
from cryopipe.workflow.plan import Plan
from tests.workflow.conftest import ROOT, TINY, snakemake
from tests.workflow.test_fetched_run import FACTS, make_movies

pytestmark = pytest.mark.workflow
Edited = Callable[[dict[str, object]], Path]


def test_a_dry_run_has_one_line_for_each_step_with_its_jobs_and_why(tmp_path: Path) -> None:
    done = snakemake("--cores", "2", "--dry-run", directory=tmp_path / "run")
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^(\w+) +(\d+)  missing output files$", done.stdout, flags=re.MULTILINE))
    names = {name.split("/")[0] for name in Plan(load_config(TINY), root=ROOT, results=tmp_path).ports.names}
    assert set(found) == names
    assert found["align_movies"] == "2"
    assert len(done.stdout.splitlines()) == len(names) + 3


def test_a_failing_item_is_named_in_the_last_lines_and_warnings_survive(tmp_path: Path, edited_config: Edited) -> None:
    movies = tmp_path / "movies"
    make_movies(movies)
    (movies / "m1.tif").write_bytes((movies / "m1.tif").read_bytes()[:100])
    for tolerated, code in ((0.0, 1), (0.5, 0)):
        run = {"name": "fails", "batch_size": 3, "max_failed_fraction": tolerated}
        dataset = FACTS | {"movies": f"{movies}/*.tif"}
        config = edited_config({"simulation": None, "dataset": dataset, "run": run})
        done = snakemake("--cores", "2", "--until", "import_movies", directory=tmp_path / "run", config=config)
        lines = done.stderr.splitlines()
        assert done.returncode == code, done.stderr
        assert len([line for line in lines if line.startswith("warning: import_movies, batch 1 of 2: m1 is ")]) == 1
        assert "Traceback" not in done.stderr
        if code:
            title, reason, log = lines[-5:-2]
            assert title == "import_movies, batch 1 of 2 failed"
            assert "m1: " in reason
            assert "remove these inputs" in reason
            assert log == f"  log: {tmp_path}/run/logs/movies/import_movies/batch_0001.log"
        else:
            assert lines[-1] == f"results: {tmp_path}/run"


def test_ctrl_c_on_a_terminal_stops_after_a_line_that_changes_and_says_what_is_kept(tmp_path: Path) -> None:
    terminal, side = pty.openpty()
    command = [
        sys.executable, "-m", "snakemake", "--configfile", str(TINY), "--directory", str(tmp_path / "run"), "--cores", "1",
    ]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CRYOPIPE_")}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=side, stderr=side, stdin=side, start_new_session=True,
        # what is started in the background ignores the signal, and so do its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    os.close(side)
    said, interrupted = "", False
    while process.poll() is None or select.select([terminal], [], [], 0)[0]:
        if select.select([terminal], [], [], 1)[0]:
            try:
                said += os.read(terminal, 65536).decode(errors="replace")
            except OSError:  # the other side is closed
                break
        if not interrupted and re.search(r"\x1b\[K\[ 0/31\]  simulate_movies: \d of 6 items", said):
            interrupted = True
            os.killpg(process.pid, signal.SIGINT)
    os.close(terminal)
    assert process.wait() != 0
    assert interrupted, said
    assert "stopped at your request: 0 of 31 jobs are done and kept" in said.splitlines()[-1], said
    assert "Traceback" not in said
