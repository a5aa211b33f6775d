"""The files of a run are found by name, step and run, and read once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cryopipe.config.ctf import ConsensusCtf
from cryopipe.errors import CryopipeError
from cryopipe.report.run_files import label_of, read_history
from tests.report.fabricated import files_of


def test_parameters_come_from_the_provenance_beside_the_outputs(tmp_path: Path) -> None:
    record = {"step": "consensus_ctf", "params": {"max_resolution_A": 7.5, "paths": ["long"]}}
    (tmp_path / "a.star.provenance.json").write_text(json.dumps(record))
    run = files_of(tmp_path, {})
    assert run.recorded_params == {"consensus_ctf": {"max_resolution_A": 7.5}}
    assert run.params_of("consensus_ctf", ConsensusCtf).max_resolution_A == 7.5


def test_a_file_belongs_to_the_step_and_the_run_whose_folder_it_lies_in(tmp_path: Path) -> None:
    assert label_of(Path("picking/pick_log/batch_0001_coordinates.star")) == "pick_log"
    assert label_of(tmp_path / "ctf/consensus_ctf/envelope/batch_0001_rejected.tsv") == "consensus_ctf/envelope"
    with pytest.raises(CryopipeError, match="no folder is named after a step"):
        label_of(Path("picking/pick_nothing/batch_0001_coordinates.star"))


def test_a_name_without_files_is_not_in_the_run(tmp_path: Path) -> None:
    run = files_of(tmp_path, {"truth": tmp_path / "truth.json", "model": []})
    assert "truth" in run
    assert "model" not in run
    assert run.json("model") == {}
    with pytest.raises(CryopipeError, match="one file model, but has 0"):
        run.path("model")


def test_a_history_has_its_numeric_columns(tmp_path: Path) -> None:
    path = tmp_path / "history.tsv"
    path.write_text("iteration\tresolution_A\tnote\n1\t20.5\tstart\n2\t12.25\t-\n")
    assert read_history(path) == [{"iteration": 1.0, "resolution_A": 20.5}, {"iteration": 2.0, "resolution_A": 12.25}]
