"""One tiny simulated run through Snakemake, shared by the tests that look at it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TINY = ROOT / "config" / "test" / "tiny.yaml"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def snakemake(*arguments: str, directory: Path, config: Path = TINY) -> subprocess.CompletedProcess[str]:
    """Run Snakemake as a user does, in a folder of the test's own."""
    directory.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile", str(config),
        "--directory", str(directory), *arguments,
    ]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CRYOPIPE_")}
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Folder and outcome of a complete tiny run: one for all workers, made by the first that asks."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, outcome = shared / "tiny", shared / "tiny.json"
    with (shared / "tiny.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not outcome.exists():
            done = snakemake("--cores", "2", directory=folder)
            outcome.write_text(json.dumps([done.args, done.returncode, done.stdout, done.stderr]))
    done = subprocess.CompletedProcess(*json.loads(outcome.read_text()))
    assert done.returncode == 0, done.stderr[-6000:]
    return folder, done


@pytest.fixture
def edited_config(tmp_path: Path) -> Callable[[dict[str, object]], Path]:
    """Write a copy of the tiny configuration with some sections replaced."""

    def write(changes: dict[str, object]) -> Path:
        tree = yaml.safe_load(TINY.read_text())
        for key, value in changes.items():
            if value is None:
                tree.pop(key, None)
            else:
                tree[key] = value
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return write
