"""What rules ask for follows from the sizes of their jobs; a formula that fails stops no run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cryopipe.config.declaration.costs import COSTS
from cryopipe.config.declaration.declare import DECLARATIONS, Cost
from cryopipe.config.picking import PickLog
from cryopipe.errors import ConfigError
from cryopipe.steps import steps
from cryopipe.workflow.costs.prediction import UNPREDICTED, Costs
from cryopipe.workflow.plan import Plan

ROOT = Path(__file__).parents[3]


def costs(tmp_path: Path, **sections: Any) -> Costs:
    tree = {"run": {"batch_size": 4}, "simulation": {"simulate_movies": {"preset": "demo", "movies": 10}}} | sections
    return Costs(Plan.of(tree, root=ROOT, default="", results=tmp_path))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    declared = DECLARATIONS[PickLog]
    steps.cache_clear()
    monkeypatch.setitem(DECLARATIONS, PickLog, replace(declared, cost=Cost(memory_MB="1 / 0", cpu_seconds="1")))
    yield
    steps.cache_clear()


def test_a_job_is_asked_for_by_the_size_of_its_batch(tmp_path: Path) -> None:
    found = costs(tmp_path)
    whole, last = (found.job("align_movies", batch, threads=2) for batch in ("batch_0001", "batch_0003"))
    start = found.job("screen_motion", "batch_0001", threads=2).cpu_seconds
    assert whole.cpu_seconds - last.cpu_seconds > 2 * start  # four movies and two
    assert whole.disk_MB == pytest.approx(2 * last.disk_MB)


def test_runs_of_a_step_and_its_batches_are_predicted_together(tmp_path: Path) -> None:
    predicted = costs(tmp_path).predict(cores=2)
    assert predicted["consensus_ctf/envelope"].jobs == predicted["align_movies"].jobs == 3
    assert predicted["refine_homogeneous"].jobs == 1
    assert "fetch_movies" not in predicted


def test_the_prediction_lies_in_the_folder_of_the_run(tmp_path: Path) -> None:
    costs(tmp_path).write(cores=2)
    stated = json.loads((tmp_path / COSTS).read_text())
    assert stated["align_movies"]["jobs"] == 3
    assert stated["align_movies"]["memory_MB"] > 200


@pytest.mark.usefixtures("broken")
def test_a_formula_that_fails_is_told_and_a_fixed_amount_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = costs(tmp_path)
    assert found.asked("pick_log", "batch_0001", threads=1) == UNPREDICTED
    assert "1 / 0" in caplog.text
    assert found.asked("screen_motion", "batch_0001", threads=1) != UNPREDICTED
    found.write(cores=2)
    assert json.loads((tmp_path / COSTS).read_text()) == {}
    with pytest.raises(ConfigError, match="1 / 0"):
        found.predict(cores=2)
