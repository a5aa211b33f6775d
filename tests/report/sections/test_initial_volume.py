"""The report says of an initial map whether its seeds support it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cryopipe.config.report import Report
from cryopipe.report.run_files import RunFiles
from cryopipe.report.sections import initial_volume, refinement


def run_with(folder: Path, name: str, file: str, text: str) -> RunFiles:
    path = folder / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return RunFiles(folder, {name: [path]}, Report())


@pytest.mark.parametrize("warning", [True, False])
def test_a_map_that_no_second_seed_found_is_warned_of(tmp_path: Path, warning: bool) -> None:
    found: dict[str, Any] = {"verdict": "none", "message": "no two found the same map", "warning": warning, "seeds": []}
    run = run_with(tmp_path, "every_initial_seeds", "initial_volume/initial_relion_sgd/seeds.json", json.dumps(found))
    part = initial_volume.build(run)
    assert part.warnings == (["initial_relion_sgd: no two found the same map"] if warning else [])
    assert part.page["initial_volume"]["contests"][0]["message"] == "no two found the same map"


@pytest.mark.parametrize(("resolution_A", "warns"), [(27.1, True), (7.7, False)])
def test_a_refined_map_that_got_no_further_than_its_start_is_warned_of(
    tmp_path: Path, resolution_A: float, warns: bool
) -> None:
    history = f"iteration\tfsc143_A\tstart_A\n1\t25\t28.3\n2\t{resolution_A}\t28.3\n"
    run = run_with(tmp_path, "every_refinement_history", "refinement/refine_homogeneous/history.tsv", history)
    part = refinement.build(run)
    assert bool(part.warnings) == warns
    assert all("27.1 Å" in text for text in part.warnings)
