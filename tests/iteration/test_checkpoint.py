"""A checkpoint is what the run itself wrote, or it is not there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cryopipe.config.refinement import RefineHomogeneous
from cryopipe.context import Context
from cryopipe.iteration.checkpoint import Checkpoint, run_fingerprint
from tests.simulated_particles import simulate


@dataclass(frozen=True)
class Row:
    iteration: float
    resolution_A: float


@dataclass(frozen=True, eq=False)
class Part:
    values: NDArray[np.float64]
    name: str


@dataclass(frozen=True, eq=False)
class State:
    iteration: int
    parts: tuple[Part, Part]
    map: np.ndarray
    history: list[Row]
    settled: bool
    width: float


def state() -> State:
    parts = (Part(np.arange(3.0), "one"), Part(np.zeros((2, 2)), "two"))
    return State(4, parts, np.ones((2, 2, 2), np.float32), [Row(1.0, 20.0), Row(2.0, 0.1)], True, 0.1)


def test_a_state_comes_back_with_its_types_and_bits(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "kept.npz", State, "stamp")
    assert checkpoint.load() is None
    checkpoint.save(state())
    found, expected = checkpoint.load(), state()
    assert found is not None
    assert (found.iteration, found.settled, found.width, found.history) == (4, True, 0.1, expected.history)
    assert type(found.settled) is bool
    assert found.parts[1].name == "two"
    np.testing.assert_array_equal(found.parts[0].values, expected.parts[0].values)
    assert found.map.dtype == np.float32
    checkpoint.remove()
    assert checkpoint.load() is None


def test_a_history_without_rows_comes_back_empty(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "kept.npz", State, "stamp")
    whole = state()
    checkpoint.save(State(0, whole.parts, whole.map, [], False, 0.0))
    found = checkpoint.load()
    assert found is not None
    assert found.history == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-30],
        lambda content: content[:200] + bytes(200) + content[400:],
        lambda content: b"not an archive at all",
    ],
    ids=["empty", "half", "end cut off", "bytes lost", "other file"],
)
def test_a_file_that_cannot_be_read_is_no_checkpoint(tmp_path: Path, spoil: object) -> None:
    checkpoint = Checkpoint(tmp_path / "kept.npz", State, "stamp")
    checkpoint.save(state())
    content = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(spoil(content))  # type: ignore[operator]
    assert checkpoint.load() is None


def test_a_state_of_another_run_or_another_kind_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "kept.npz"
    Checkpoint(path, State, "stamp").save(state())
    assert Checkpoint(path, State, "other").load() is None
    Checkpoint(path, Part, "stamp").save(state().parts[0])
    assert Checkpoint(path, State, "stamp").load() is None
    path.unlink()
    path.mkdir()
    assert Checkpoint(path, State, "stamp").load() is None


def test_the_fingerprint_knows_parameters_seed_rows_optics_stacks_and_files(tmp_path: Path) -> None:
    data = simulate(tmp_path, count=20, snr=0.1, box=32, pixel_size_A=5.0)
    table, params, start = data.table, RefineHomogeneous(symmetry="O"), tmp_path / "start.mrc"
    start.write_bytes(b"map")

    def stamp(particles: object = table, options: object = params, seed: int = 1) -> str:
        context = Context("refine_homogeneous", tmp_path, seed=seed)
        return run_fingerprint(context, options, particles, files=[start])  # type: ignore[arg-type]

    defocus = table.rows["rlnDefocusU"].to_numpy(copy=True)
    defocus[7] += 1
    stamps = [
        stamp(),
        stamp(table.with_rows(table.rows.assign(rlnDefocusU=defocus))),
        stamp(type(table)("particles", table.optics.assign(rlnVoltage=200.0), table.rows)),
        stamp(options=RefineHomogeneous(symmetry="T")),
        stamp(seed=2),
    ]
    assert stamp() == stamps[0]
    start.write_bytes(b"another map")
    stamps.append(stamp())
    stack = tmp_path / "particles.mrcs"
    stack.write_bytes(stack.read_bytes() + b"1")
    stamps.append(stamp())
    assert len(set(stamps)) == len(stamps)
