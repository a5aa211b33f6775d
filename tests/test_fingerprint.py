"""What a fingerprint takes note of: content, wherever it stands; and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopipe import fingerprint as module
from cryopipe.config.declaration.base import Params, parameter
from cryopipe.context import Context
from cryopipe.fingerprint import file_digest, fingerprint


class Options(Params):
    """Parameters of a step."""

    voltage_kV: float = parameter("Voltage.", default=300.0)
    attempts: int = parameter("Attempts.", default=5)


@dataclass(frozen=True)
class Entry:
    """A fact that is an object."""

    path: Path
    values: np.ndarray


def stamp(folder: Path, *facts: object, seed: int = 1, **options: object) -> str:
    return fingerprint(Context(step="s", work_dir=folder, seed=seed), Options(), *facts, **options)  # type: ignore[arg-type]


CHANGES: dict[str, tuple[object, object]] = {
    "a number": ({"rlnVoltage": 300.0}, {"rlnVoltage": 200.0}),
    "the last bit of a number": (0.1 + 0.2, 0.3),
    "a name": ({"crpItem": "a"}, {"crpItem": "b"}),
    "a pixel of an array": (np.zeros(5), np.eye(5)[2]),
    "the type of an array": (np.zeros(4, np.float32), np.zeros(4, np.int32)),
    "the shape of an array": (np.zeros((2, 3)), np.zeros((3, 2))),
    "a cell of a table": (pd.DataFrame({"x": [1.0, 2.0]}), pd.DataFrame({"x": [1.0, 2.5]})),
    "a field of an object": (Entry(Path("a"), np.zeros(2)), Entry(Path("b"), np.zeros(2))),
    "an array of an object": (Entry(Path("a"), np.zeros(2)), Entry(Path("a"), np.ones(2))),
    "a parameter of another step": (Options(), Options(voltage_kV=200)),
    "a fact that is missing": ((1, None), (None, 1)),
    "what is deep inside": ({"a": [({"b": 1},)]}, {"a": [({"b": 2},)]}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_fact_changes_the_fingerprint(change: str, tmp_path: Path) -> None:
    before, after = CHANGES[change]
    assert stamp(tmp_path, before) == stamp(tmp_path, before)
    assert stamp(tmp_path, before) != stamp(tmp_path, after)


def test_the_order_of_columns_does_not_count_but_that_of_rows_does(tmp_path: Path) -> None:
    assert stamp(tmp_path, {"a": 1, "b": 2}) == stamp(tmp_path, {"b": 2, "a": 1})
    assert stamp(tmp_path, [1, 2]) != stamp(tmp_path, [2, 1])


def test_parameters_count_but_those_that_change_no_result(tmp_path: Path) -> None:
    context = Context(step="s", work_dir=tmp_path)
    usual = fingerprint(context, Options(), ignore=["attempts"])
    assert fingerprint(context, Options(attempts=9), ignore=["attempts"]) == usual
    assert fingerprint(context, Options(voltage_kV=200), ignore=["attempts"]) != usual
    assert fingerprint(context, Options(attempts=9)) != fingerprint(context, Options())


def test_the_seed_counts_unless_nothing_is_drawn(tmp_path: Path) -> None:
    assert stamp(tmp_path, seed=1) != stamp(tmp_path, seed=2)
    assert stamp(tmp_path, seed=1, seeded=False) == stamp(tmp_path, seed=2, seeded=False)


def test_an_object_of_unknown_content_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="object cannot be part of a fingerprint"):
        stamp(tmp_path, object())


def _shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WHOLE_FILE_LIMIT", 1000)
    monkeypatch.setattr(module, "END", 100)


def _edit(path: Path, place: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"!")


def _append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"!")


@pytest.mark.parametrize("size", [600, 5000], ids=["small", "large"])
@pytest.mark.parametrize(
    "change",
    [lambda p: _edit(p, 0), lambda p: _edit(p, 300), lambda p: _edit(p, -1 % p.stat().st_size), _append, Path.unlink],
    ids=["head", "middle", "tail", "longer", "gone"],
)
def test_a_changed_file_changes_the_fingerprint(
    size: int, change: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _shrink(monkeypatch)
    path = tmp_path / "movie.tif"
    path.write_bytes(bytes(size))
    os.utime(path, ns=(0, 0))
    before = stamp(tmp_path, files=[path])
    assert stamp(tmp_path, files=[path, path]) == before
    change(path)
    assert stamp(tmp_path, files=[path]) != before


def test_a_small_file_that_was_written_again_with_the_same_content_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(b"content")
    before = file_digest(path)
    path.unlink()
    path.write_bytes(b"content")
    os.utime(path, ns=(7, 7))
    assert file_digest(path) == before == "sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"


def test_of_a_large_file_the_ends_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stack.mrcs"
    with path.open("wb") as stream:
        stream.truncate(module.WHOLE_FILE_LIMIT * 4)
    read: list[int] = []

    class Counting:
        def __init__(self) -> None:
            self.content = b""

        def update(self, block: bytes) -> None:
            read.append(len(block))

        def hexdigest(self) -> str:
            return "x"

    monkeypatch.setattr(module.hashlib, "sha256", Counting)
    first = file_digest(path)
    assert first == file_digest(path) == f"sha256-ends:{module.WHOLE_FILE_LIMIT * 4}:x@{path.stat().st_mtime_ns}"
    assert sum(read) == 2 * module.END


def test_a_file_that_cannot_be_read_is_as_one_that_is_missing(tmp_path: Path) -> None:
    assert file_digest(tmp_path) is None
    assert file_digest(tmp_path / "no.mrc") is None
