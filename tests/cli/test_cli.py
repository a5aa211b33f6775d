"""The command line: validation before a run, and errors that are one message."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from cryopipe.cli import main
from cryopipe.selftest import checks

ROOT = Path(__file__).parents[2]


def test_check_says_what_the_run_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(ROOT / "config" / "config.yaml")]) == 0
    said = capsys.readouterr().out
    assert "12 movies" in said
    assert "symmetry O" in said


def test_check_prints_what_each_step_needs_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(ROOT / "config" / "config.yaml"), "--cores", "2"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert rows["align_movies"].split()[1] == "2"
    assert rows["all"].split()[1] == "29"
    assert not list(tmp_path.iterdir())


def test_check_says_the_same_as_json_and_more_cores_take_less_time(capsys: pytest.CaptureFixture[str]) -> None:
    elapsed = []
    for cores in ("2", "32"):
        assert main(["check", str(ROOT / "config" / "config.yaml"), "--cores", cores, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["sizes"]["images"] == 12
        assert said["steps"]["refine_homogeneous"]["memory_MB"] > 300
        elapsed.append(said["elapsed_seconds"])
    assert 0 < elapsed[1] < elapsed[0] < sum(step["cpu_seconds"] for step in said["steps"].values())


def test_params_prints_every_step_with_derived_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["params", str(ROOT / "config" / "config.yaml")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["refine_homogeneous"]["symmetry"] == "O"
    assert printed["extract_particles"]["box_px"] == 200


def test_a_faulty_configuration_is_one_message_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text("run: {nmae: x}\n")
    assert main(["check", str(tmp_path / "bad.yaml")]) == 1
    assert "did you mean 'name'?" in capsys.readouterr().err


def test_a_missing_file_of_the_configuration_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text(
        "dataset: {movies: 'nowhere/*.tif', pixel_size_A: 1, voltage_kV: 300, cs_mm: 2.7, "
        "particle_diameter_A: 99, symmetry: C1}\n"
    )
    assert main(["check", str(tmp_path / "bad.yaml")]) == 1
    assert "dataset.movies: no file matches" in capsys.readouterr().err


def test_doctor_checks_every_kernel_and_fails_on_a_wrong_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for kernel in checks.kernels():
        assert kernel in said
    assert "all checks passed" in said
    wrong = [dataclasses.replace(row, passed=False) for row in checks.run()]
    monkeypatch.setattr(checks, "run", lambda: wrong)
    assert main(["doctor"]) == 1
    assert "do not trust the results of this machine" in capsys.readouterr().out
