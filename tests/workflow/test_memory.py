"""The budget of particles is what the configuration states, else half of the least that machine and scheduler leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryopipe.workflow import memory


@pytest.fixture(autouse=True)
def roomy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_machine", lambda: 64 << 30)
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)


def test_what_the_configuration_states_goes_before_what_is_free() -> None:
    assert memory.particle_memory_bytes(2.5) == 2_500_000_000


def test_half_of_what_is_free_is_the_default() -> None:
    assert memory.particle_memory_bytes(None) == 32 << 30


def test_a_control_group_limits_what_is_free(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("8589934592\n")
    (tmp_path / "memory.current").write_text("1073741824\n")
    assert memory.free_memory_bytes() == 7 << 30
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_memory_bytes() == 64 << 30


def test_a_slurm_allocation_limits_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "2048")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "4")
    assert memory.free_memory_bytes() == 8 << 30
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "4096")
    assert memory.free_memory_bytes() == 4 << 30


def test_this_machine_tells_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    free = memory.free_memory_bytes()
    assert free is not None
    assert 1 << 20 < free < 1 << 46
