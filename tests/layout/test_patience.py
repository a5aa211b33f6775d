"""A test that hangs is ended, whether it waits or works; one that is slow on a loaded machine is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
CONFTEST = """
from tests import patience
from tests.patience import pytest_timeout_cancel_timer, pytest_timeout_set_timer
patience.LOOK_S, patience.STILL_S = 0.2, 3.0
"""


def outcome(folder: Path, body: str, limit_s: float) -> str:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    lines = "\n    ".join(body.splitlines())
    (folder / "test_it.py").write_text(f"import subprocess, sys, time\n\n\ndef test_it():\n    {lines}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--timeout={limit_s}", "test_it.py"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False).stdout


def test_a_test_that_waits_without_end_is_given_up_and_its_processes_with_it(tmp_path: Path) -> None:
    said = outcome(tmp_path, "subprocess.run([sys.executable, '-c', 'import time; time.sleep(987654)'])", 1000)
    assert "given up: it has stood still for 3 s" in said
    left = [
        p for p in psutil.process_iter(["cmdline"]) if "import time; time.sleep(987654)" in (p.info["cmdline"] or [])
    ]
    assert left == []


@pytest.mark.parametrize(
    "body",
    ["while True:\n    pass", "subprocess.run([sys.executable, '-c', 'while True: pass'])"],
    ids=["here", "child"],
)
def test_a_test_that_works_without_end_is_given_up(tmp_path: Path, body: str) -> None:
    assert "of processor time; its limit is 2 s" in outcome(tmp_path, body, 2)


def test_a_test_that_works_little_but_steadily_is_left_alone(tmp_path: Path) -> None:
    # 6 s by the clock, twice the time of standing still, and a tenth of a core: as on a machine with ten jobs a core
    body = "end = time.monotonic() + 6\nwhile time.monotonic() < end:\n    sum(range(300_000))\n    time.sleep(0.05)"
    assert "1 passed" in outcome(tmp_path, body, 4)
