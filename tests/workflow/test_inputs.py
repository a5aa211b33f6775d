"""Movies and micrographs are inputs of a run: one that changes, vanishes or returns runs its batch again, and no other."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cryopipe.config.load import load_config
from cryopipe.io.star import read_rejections, read_table
from cryopipe.steps import step_of
from cryopipe.workflow.plan import Plan
from tests.workflow.conftest import ROOT, snakemake
from tests.workflow.test_fetched_run import FACTS, make_movies

pytestmark = pytest.mark.workflow
Edited = Callable[[dict[str, object]], Path]


def sections(movies: Path, **run: Any) -> dict[str, object]:
    settings = {"name": "inputs", "batch_size": 3, "max_failed_fraction": 0.5}
    return {"simulation": None, "dataset": FACTS | {"movies": f"{movies}/*.tif"}, "run": settings | run}


def jobs(folder: Path, config: Path, *options: str) -> int:
    """Run, or only plan, up to the import, and return the number of its jobs."""
    done = snakemake("--cores", "2", *options, "--until", "import_movies", directory=folder, config=config)
    assert done.returncode == 0, done.stderr[-3000:]
    planned = re.search(r"^import_movies +(\d+) ", done.stdout, flags=re.MULTILINE)
    return int(planned.group(1)) if planned else len(re.findall(r"^\[.*\] +import_movies ", done.stderr, re.MULTILINE))


def imported(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the movies of all batches, and the reasons of those that are left out."""
    tables = sorted(folder.glob("movies/import_movies/*_movies.star"))
    lists = sorted(folder.glob("movies/import_movies/*_rejected.tsv"))
    items = [item for table in tables for item in read_table(table, "movies").rows["crpItem"]]
    return items, {row.item: row.reason for path in lists for row in read_rejections(path)}


@pytest.mark.timeout(1200)
def test_a_movie_that_is_repaired_or_vanishes_runs_its_batch_again_and_no_other(
    tmp_path: Path, edited_config: Edited
) -> None:
    movies, folder = tmp_path / "movies", tmp_path / "run"
    make_movies(movies)
    whole = (movies / "m1.tif").read_bytes()
    (movies / "m1.tif").write_bytes(whole[: len(whole) // 2])
    config = edited_config(sections(movies))
    assert jobs(folder, config) == 2
    items, reasons = imported(folder)
    assert items == ["m0", "m2", "m3", "m4", "m5"]
    assert list(reasons) == ["m1"]

    # copied again, with the time of the original: older than all results
    (movies / "m1.tif").write_bytes(whole)
    os.utime(movies / "m1.tif", (1e9, 1e9))
    assert jobs(folder, config) == 1
    assert imported(folder) == (["m0", "m1", "m2", "m3", "m4", "m5"], {})

    away = (movies / "m4.tif").rename(tmp_path / "m4.tif")
    assert jobs(folder, config) == 1
    items, reasons = imported(folder)
    assert items == ["m0", "m1", "m2", "m3", "m5"]
    assert "m4.tif" in reasons["m4"]

    # settings on which no result depends run nothing again; a dry run plans the batch of a new movie and the one of the movie
    # that is back, and leaves the manifest as it is
    away.rename(movies / "m4.tif")
    (movies / "m6.tif").write_bytes(whole)
    changed = sections(movies, device="cpu", max_failed_fraction=0.3)
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | changed))
    manifest = (folder / "manifest.txt").read_text()
    assert jobs(folder, config, "--dry-run") == 2
    assert (folder / "manifest.txt").read_text() == manifest
    assert jobs(folder, config) == 2
    assert imported(folder) == ([f"m{i}" for i in range(7)], {})


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "test").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_dry_run_of_each_configuration_plans_the_steps_that_its_ports_name(path: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load(path.read_text())
    if "micrographs" in tree.get("dataset", {}):
        # those of the tiny run; what is in them does not matter here
        (tmp_path / "data").mkdir()
        for i in range(4):
            (tmp_path / "data" / f"mov_{i}.mrc").touch()
        tree["dataset"]["micrographs"] = f"{tmp_path}/data/*.mrc"
    config = tmp_path / path.name
    config.write_text(yaml.safe_dump(tree))
    done = snakemake("--cores", "2", "--dry-run", "--quiet", "rules", directory=tmp_path / "run", config=config)
    assert done.returncode == 0, done.stderr[-3000:]
    rules = set(re.findall(r"^(\w+)\s+\d+$", done.stdout + done.stderr, flags=re.MULTILINE)) - {"all", "total"}
    steps = {step_of(name).name for name in Plan(load_config(config), root=ROOT, results=tmp_path).ports.names}
    assert rules == steps
