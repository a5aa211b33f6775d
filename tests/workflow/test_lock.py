"""A killed run's lock is released; that of a living run, or of another host, never is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cryopipe.workflow import lock
from cryopipe.workflow.lock import claim


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    folder = tmp_path / ".snakemake" / "locks"
    folder.mkdir(parents=True)
    (folder / "0.input.lock").write_text("x")
    return tmp_path


def owned_by(results: Path, **owner: object) -> None:
    (results / ".snakemake" / "cryopipe_owner.json").write_text(json.dumps(owner))


def has_lock(results: Path) -> bool:
    return (results / ".snakemake" / "locks").exists()


def test_a_dead_owners_lock_is_released(locked: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owned_by(locked, **lock._identity(child.pid))
    assert not claim(locked)
    assert has_lock(locked)
    child.kill()
    child.wait()
    assert claim(locked)
    assert not has_lock(locked)
    child.stdin.close()  # type: ignore[union-attr]


def test_a_reused_process_id_is_not_taken_for_the_owner(locked: Path) -> None:
    owned_by(locked, **(lock._identity(os.getppid()) | {"started": 1.0}))
    assert claim(locked)


def test_a_lock_of_another_host_or_of_something_else_is_respected(locked: Path) -> None:
    assert not claim(locked)
    owned_by(locked, host="elsewhere", pid=1, started=1.0)
    assert not claim(locked)
    assert has_lock(locked)


def test_the_owner_may_claim_again(tmp_path: Path) -> None:
    assert claim(tmp_path)
    assert claim(tmp_path)
