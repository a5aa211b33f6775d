"""Working through a batch: resume, quarantine, counts that add up, a stop when too much fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cryopipe.config.declaration.base import Params, parameter
from cryopipe.context import Context
from cryopipe.errors import CryopipeError, InputError
from cryopipe.items import process_items


class Power(Params):
    """Parameters of a step."""

    power: int = parameter("Exponent.", default=2)


#: What `process_items` needs where a test is not about it: default parameters, no files.
NOTHING: dict[str, Any] = {"params": Power(), "reads": lambda item, value: []}


def square(name: str, item: int) -> dict[str, Any]:
    if item < 0:
        raise InputError(f"{name}: negative value {item}")
    return {"name": name, "value": item**2}


def test_rows_and_rejections_add_up_to_the_items(tmp_path: Path) -> None:
    items = {f"m{i}": (-1 if i == 4 else i) for i in range(10)}
    results = process_items(items, square, Context(step="s", work_dir=tmp_path), **NOTHING, threads=2)
    assert [row["name"] for row in results.rows] == [n for n in items if n != "m4"]
    assert [(r.item, r.kind, r.reason) for r in results.rejections] == [("m4", "quarantined", "m4: negative value -1")]


def test_a_second_run_does_only_what_is_missing(tmp_path: Path) -> None:
    context = Context(step="s", work_dir=tmp_path)
    done: list[str] = []

    def work(name: str, item: int) -> dict[str, Any]:
        done.append(name)
        if name == "m2" and len(done) == 3:
            raise KeyboardInterrupt
        return square(name, item)

    items = {f"m{i}": i for i in range(5)}
    with pytest.raises(KeyboardInterrupt):
        process_items(items, work, context, **NOTHING)
    results = process_items(items, work, context, **NOTHING)
    assert done == ["m0", "m1", "m2", "m2", "m3", "m4"]
    assert [row["value"] for row in results.rows] == [0, 1, 4, 9, 16]


def test_a_kept_row_is_ignored_when_a_parameter_or_a_file_that_was_made_changed(tmp_path: Path) -> None:
    context = Context(step="s", work_dir=tmp_path)
    made = tmp_path / "made.mrc"
    calls: list[str] = []

    def work(name: str, item: int) -> dict[str, Any]:
        calls.append(name)
        made.write_text("x")
        return {"file": str(made)}

    def run(power: int) -> int:
        process_items(
            {"m": 1},
            work,
            context,
            params=Power(power=power),
            reads=lambda item, value: [],
            makes=lambda item, row: [Path(row["file"])],
        )
        return len(calls)

    assert [run(2), run(2), run(3), run(3)] == [1, 1, 2, 2]
    made.unlink()
    assert [run(3), run(3)] == [3, 3]
    made.write_text("")  # cut short
    assert [run(3), run(3)] == [4, 4]


def test_a_row_is_forgotten_before_its_files_are_written_over(tmp_path: Path) -> None:
    """Killed between the files and the row of another making, a run with the first parameters makes its own again."""
    context = Context(step="s", work_dir=tmp_path)
    made = tmp_path / "made.txt"

    def run(power: int, *, killed: bool = False) -> None:
        def work(name: str, item: int) -> dict[str, Any]:
            made.write_text(str(power))
            if killed:
                raise KeyboardInterrupt
            return {"power": power}

        process_items(
            {"m": 1},
            work,
            context,
            params=Power(power=power),
            reads=lambda item, value: [],
            makes=lambda item, row: [made],
        )

    run(2)
    with pytest.raises(KeyboardInterrupt):
        run(3, killed=True)
    run(2)
    assert made.read_text() == "2"


def test_the_seed_counts_where_random_numbers_are_drawn_and_only_there(tmp_path: Path) -> None:
    for draws, expected in ((False, 1), (True, 2)):
        calls: list[int] = []
        for seed in (1, 2, 2):
            context = Context(step="s", work_dir=tmp_path / str(draws), seed=seed)

            def work(name: str, item: int, context: Context = context, draws: bool = draws) -> dict[str, Any]:
                calls.append(context.seed)  # noqa: B023
                return {"value": float(context.rng(name).normal()) if draws else 1.0}

            process_items({"m": 1}, work, context, **NOTHING)
        assert len(calls) == expected


def test_code_counts(tmp_path: Path) -> None:
    calls: list[str] = []

    def work(name: str, item: int) -> dict[str, Any]:
        calls.append(name)
        return {}

    for code in ("a", "a", "b"):
        process_items({"m": 1}, work, Context(step="s", work_dir=tmp_path, code=code), **NOTHING)
    assert len(calls) == 2


def test_too_many_failures_stop_the_run_with_the_first_reasons(tmp_path: Path) -> None:
    items = {f"m{i}": -1 for i in range(4)}
    with pytest.raises(
        CryopipeError, match=r"3 of 4 items failed, more than the allowed share of 50%.*m0: negative value -1"
    ):
        process_items(items, square, Context(step="s", work_dir=tmp_path, max_failed_fraction=0.5), **NOTHING)


def test_the_run_stops_as_soon_as_too_many_failed_and_not_after_the_last_item(tmp_path: Path) -> None:
    tried: list[str] = []

    def fail(name: str, item: int) -> dict[str, Any]:
        tried.append(name)
        raise InputError("no")

    with pytest.raises(CryopipeError, match="21 of 100 items failed"):
        process_items({f"m{i}": i for i in range(100)}, fail, Context(step="s", work_dir=tmp_path), **NOTHING)
    assert len(tried) == 21


@pytest.mark.parametrize(("bad", "in_run", "stops"), [(4, 100, False), (5, 100, True), (2, 8, True), (1, 8, False)])
def test_a_batch_of_several_stops_the_run_only_by_failures_that_are_not_few(
    tmp_path: Path, bad: int, in_run: int, stops: bool
) -> None:
    items = {f"m{i}": (-1 if i < bad else i) for i in range(8)}
    context = Context(step="s", work_dir=tmp_path, max_failed_fraction=0.2, items_in_run=in_run)
    if stops:
        with pytest.raises(CryopipeError, match=f"{bad} of 8 items failed"):
            process_items(items, square, context, **NOTHING)
    else:
        assert len(process_items(items, square, context, **NOTHING).rejections) == bad


def test_a_defect_of_the_program_is_not_put_into_quarantine(tmp_path: Path) -> None:
    def defect(name: str, item: int) -> dict[str, Any]:
        raise TypeError("wrong call")

    with pytest.raises(TypeError):
        process_items({"m": 1}, defect, Context(step="s", work_dir=tmp_path), **NOTHING)
