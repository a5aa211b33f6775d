"""The files of a run are found by name, step and run, and read once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cryopipe.config.ctf import ConsensusCtf
from cryopipe.errors import CryopipeError
from cryopipe.report.run_files import read_history
from tests.report.fabricated import files_of


def test_parameters_come_from_the_provenance_beside_the_outputs(tmp_path: Path) -> None:
    record = {"step": "consensus_ctf/defocus", "params": {"max_resolution_A": 7.5, "paths": ["long"]}}
    (tmp_path / "a.star.provenance.json").write_text(json.dumps(record))
    run = files_of(tmp_path, {})
    assert run.recorded_params == {"consensus_ctf/defocus": {"max_resolution_A": 7.5}}
    assert run.params_of("consensus_ctf", ConsensusCtf).max_resolution_A == 7.5


def test_files_are_told_apart_by_the_step_and_the_run_whose_folder_they_lie_in(tmp_path: Path) -> None:
    files = [
        tmp_path / "ctf/consensus_ctf/envelope/batch_0001_rejected.tsv",
        tmp_path / "picking/pick_log/batch_0001_rejected.tsv",
        tmp_path / "picking/pick_log/batch_0002_rejected.tsv",
    ]
    deselected = tmp_path / "classes2d/select_classes_2d/rejected.star"
    run = files_of(tmp_path, {"rejected": files[1:] + files[:1], "every_deselected_particles": [deselected]})
    assert run.by_step("rejected") == {"pick_log": files[1:], "consensus_ctf/envelope": files[:1]}
    assert list(run.rejections) == ["consensus_ctf/envelope", "pick_log", "select_classes_2d"]  # as the data flow


def test_a_name_without_files_is_not_in_the_run(tmp_path: Path) -> None:
    run = files_of(tmp_path, {"truth_summary": tmp_path / "truth.json", "model_summary": []})
    assert "truth_summary" in run
    assert "model_summary" not in run
    assert run.json("model_summary") == {}
    with pytest.raises(CryopipeError, match="one file model_summary, but it has 0"):
        run.path("model_summary")


def test_a_history_has_its_numeric_columns(tmp_path: Path) -> None:
    path = tmp_path / "history.tsv"
    path.write_text("iteration\tresolution_A\tnote\n1\t20.5\tstart\n2\t12.25\t-\n")
    assert read_history(path) == [{"iteration": 1.0, "resolution_A": 20.5}, {"iteration": 2.0, "resolution_A": 12.25}]
