"""Particles that are no hollow ball, from movies to map: nothing is lost on the way, and the map is the particle's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.workflow.conftest import ROOT, snakemake

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize("name", ["irregular", "d2", "rod"])
def test_a_particle_of_any_shape_goes_from_movies_to_a_map_of_itself(name: str, tmp_path: Path) -> None:
    config = ROOT / "config" / "test" / f"{name}.yaml"
    done = snakemake("--cores", "2", "--until", "validate_truth", directory=tmp_path, config=config)
    assert done.returncode == 0, done.stderr[-4000:]
    rejected = {
        path.parts[-2]: [line.split("\t")[2] for line in path.read_text().splitlines()[1:]]
        for path in tmp_path.glob("*/*/**/*_rejected.tsv")
    }
    assert not any(rejected[step] for step in ("import_movies", "align_movies", "screen_motion")), rejected
    truth = json.loads((tmp_path / "validation/validate_truth/truth.json").read_text())["truth"]
    assert truth["precision"] > 0.95
