"""Each configuration of config/test is run, not planned alone: micrographs, an archive and a model enter as for a user."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cryopipe.io.mrc import read_volume
from cryopipe.io.star import read_rejections, read_table
from tests.archive_server import serve
from tests.workflow.configurations import FOLDER, LAST_STEPS, SPECIMENS, stage_of, steps_that_run
from tests.workflow.conftest import snakemake

pytestmark = pytest.mark.workflow
Outcome = tuple[Path, "subprocess.CompletedProcess[str]"]
MOVIES = "simulation/simulate_movies/movies"


def run(name: str, folder: Path, changes: Mapping[tuple[str, ...], Any]) -> None:
    """Run a configuration as far as the tests do, with some values replaced (where files lie), and see what every step left."""
    tree = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    for keys, value in changes.items():
        section = tree
        for key in keys[:-1]:
            section = section[key]
        assert keys[-1] in section, f"{name}.yaml has no {'.'.join(keys)}"
        section[keys[-1]] = value
    folder.mkdir(exist_ok=True)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(tree))
    until = ["--until", *LAST_STEPS[name]] if LAST_STEPS[name] else []
    done = snakemake("--cores", "2", *until, directory=folder, config=config)
    assert done.returncode == 0, done.stderr[-4000:]
    idle = [
        step for step in steps_that_run(name) if not list((folder / stage_of(step) / step).rglob("*.provenance.json"))
    ]
    assert not idle, f"{name}.yaml: no output of {', '.join(idle)}"


def test_every_configuration_is_run() -> None:
    assert {*LAST_STEPS, *SPECIMENS} == {path.stem for path in FOLDER.glob("*.yaml")}


def test_the_tiny_configuration_runs_all_its_steps(tiny_run: Outcome) -> None:
    folder, _ = tiny_run
    for step in steps_that_run("tiny"):
        assert list((folder / stage_of(step) / step).rglob("*.provenance.json")), step


def test_micrographs_become_a_map_without_any_movie(tiny_run: Outcome, tmp_path: Path) -> None:
    source = tiny_run[0] / "movies/align_movies/micrographs"
    run("micrographs", tmp_path / "run", {("dataset", "micrographs"): f"{source}/*[0-9].mrc"})
    numbers = json.loads((tmp_path / "run/report/report/report.json").read_text())
    counts = numbers["counts"]
    assert counts["micrographs"]["in"] == len(list(source.glob("*[0-9].mrc"))) > 0
    assert counts["micrographs"]["in"] == counts["micrographs"]["accepted"] + counts["micrographs"]["rejected"]
    assert counts["particles"]["accepted"] > 0
    assert numbers["map"]["fsc0143_A"] > 0
    table = read_table(tmp_path / "run/movies/import_micrographs/batch_0001_micrographs.star", "micrographs").rows
    assert len(table) == counts["micrographs"]["in"]
    volume = read_volume(tmp_path / "run/refinement/refine_homogeneous/run_class001.mrc")[0]
    assert volume.std() > 0


def test_downloaded_movies_become_micrographs(
    tiny_run: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = tmp_path / "archive/10248/data"
    shutil.copytree(tiny_run[0] / MOVIES, served, ignore=shutil.ignore_patterns("*.json"))
    with serve(tmp_path / "archive") as archive:
        run("archive", tmp_path / "run", {("movies", "fetch_movies", "base_url"): archive.url})
    for movie in served.glob("*.tif"):
        received = tmp_path / "run/movies/fetch_movies/movies/10248/data" / movie.name
        assert received.read_bytes() == movie.read_bytes()
    folder = tmp_path / "run/movies"
    rejected = [row for path in folder.glob("*/batch_*_rejected.tsv") for row in read_rejections(path)]
    assert not [row for row in rejected if row.kind == "quarantined"]
    tables = [read_table(path, "micrographs").rows for path in folder.glob("align_movies/batch_*_micrographs.star")]
    assert sum(map(len, tables)) == len(list(served.glob("*.tif")))


def test_an_atomic_model_judges_the_map(tiny_run: Outcome, tmp_path: Path) -> None:
    # the tiny run has the same movies, micrographs and CTFs of this estimator: they are not made again
    for kept in ("simulation", "movies", "ctf/estimate_ctf_gctf", ".snakemake", "logs", "benchmarks"):
        shutil.copytree(tiny_run[0] / kept, tmp_path / "run" / kept, copy_function=shutil.copy2)
    shutil.copy2(tiny_run[0] / "manifest.txt", tmp_path / "run/manifest.txt")
    before = (tmp_path / "run/movies/estimate_gain/gain.mrc").stat().st_mtime_ns
    run("model", tmp_path / "run", {})
    assert (tmp_path / "run/movies/estimate_gain/gain.mrc").stat().st_mtime_ns == before
    found = json.loads((tmp_path / "run/validation/validate_model/model.json").read_text())["model"]
    assert found["fsc05_A"] > 0
    assert not (tmp_path / "run/ctf/estimate_ctf_ctffind").exists()
