"""Movies through Snakemake up to the import: downloaded from a server that fails, and stopped when too many fail."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryopipe.io.movies import write_movie
from cryopipe.io.star import read_rejections, read_table
from tests.archive_server import serve
from tests.workflow.conftest import ROOT, snakemake

pytestmark = pytest.mark.workflow
NAMES = [f"m{i}" for i in range(6)]
FACTS = {"pixel_size_A": 0.5, "voltage_kV": 300, "cs_mm": 2.7, "particle_diameter_A": 125, "symmetry": "O"}
Edited = Callable[[dict[str, object]], Path]


def make_movies(folder: Path) -> None:
    for seed, name in enumerate(NAMES):
        rng = np.random.default_rng(seed)
        write_movie(folder / f"{name}.tif", (rng.poisson(0.5, (40, 60)).astype(np.uint16) for _ in range(3)), 0.5)


def sections(movies: str, *, tolerated: float, **fetch: Any) -> dict[str, object]:
    return {
        "simulation": None,
        "dataset": FACTS | {"movies": movies},
        "run": {"name": "archive", "batch_size": 3, "max_failed_fraction": tolerated},
        "movies": {"fetch_movies": {"attempts": 2, "wait_s": 0, **fetch}},
    }


def test_movies_are_listed_once_downloaded_in_jobs_and_imported(
    tmp_path: Path, edited_config: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    data = tmp_path / "archive" / "10248" / "data"
    make_movies(data)
    with serve(tmp_path / "archive") as archive:
        archive.drop["10248/data/m1.tif"] = [1200]
        archive.drop["10248/data/m4.tif"] = [10, 10]
        config = edited_config(sections("empiar:10248/data/*.tif", tolerated=0.5, base_url=archive.url))
        planned = snakemake("--cores", "2", "--dry-run", directory=tmp_path / "run", config=config)
        assert planned.returncode == 0, planned.stderr[-3000:]
        assert {path for _, path, _ in archive.requests} == {"10248/data/"}
        done = snakemake("--cores", "2", "--until", "import_movies", directory=tmp_path / "run", config=config)
        assert done.returncode == 0, done.stderr[-3000:]
        assert [path for _, path, _ in archive.requests].count("10248/data/") == 1
    folder = tmp_path / "run" / "movies" / "import_movies"
    tables = [read_table(folder / f"batch_000{i}_movies.star", "movies").rows for i in (1, 2)]
    assert [list(table["crpItem"]) for table in tables] == [["m0", "m1", "m2"], ["m3", "m5"]]
    lost = read_rejections(tmp_path / "run" / "movies" / "fetch_movies" / "batch_0002_rejected.tsv")
    assert [(row.item, row.kind) for row in lost] == [("m4", "quarantined")]
    assert "the connection ended after 20 of" in lost[0].reason
    for name in tables[0]["rlnMicrographMovieName"]:
        assert name.startswith("movies/fetch_movies/movies/10248/data/m")
        assert (tmp_path / "run" / name).read_bytes() == (data / Path(name).name).read_bytes()
    assert re.search(r"fetch_movies +batch 2 of 2 +\d+ (s|min) +2 of 3 movies$", done.stderr, flags=re.MULTILINE), (
        done.stderr
    )
    # the archive is gone: nothing is listed or received again
    again = snakemake("--cores", "2", "--until", "import_movies", directory=tmp_path / "run", config=config)
    assert "Nothing to be done" in again.stderr, again.stderr[-3000:]


def test_a_run_killed_in_the_middle_of_a_file_goes_on_from_there(
    tmp_path: Path, edited_config: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    data = tmp_path / "archive" / "10248" / "data"
    make_movies(data)
    part = tmp_path / "run/movies/fetch_movies/movies/10248/data/m1.tif.part"
    with serve(tmp_path / "archive") as archive:
        archive.hang["10248/data/m1.tif"] = 1000
        config = edited_config(sections("empiar:10248/data/m[0-2].tif", tolerated=0.5, base_url=archive.url))
        command = [
            sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile", str(config),
            "--directory", str(tmp_path / "run"), "--cores", "1", "--until", "fetch_movies",
        ]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 300
        # m0 comes side by side with m1: it is not asked for again once its row is kept, a moment after its last byte
        kept = tmp_path / "run/movies/fetch_movies/work/batch_0001/items/m0.json"
        while not (part.exists() and part.stat().st_size == 1000 and kept.exists()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert kept.exists()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert part.stat().st_size == 1000
        done = snakemake("--cores", "1", "--until", "fetch_movies", directory=tmp_path / "run", config=config)
        assert done.returncode == 0, done.stderr[-3000:]
        assert archive.ranges("10248/data/m1.tif") == [None, "bytes=1000-"]
        assert archive.ranges("10248/data/m0.tif") == [None]
    assert part.with_suffix("").read_bytes() == (data / "m1.tif").read_bytes()
    assert not part.exists()


def test_a_list_with_checksums_takes_the_place_of_the_indices(
    tmp_path: Path, edited_config: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    data = tmp_path / "archive" / "10248" / "data"
    make_movies(data)
    sums = [f"{hashlib.md5((data / f'{name}.tif').read_bytes()).hexdigest()}  ./data/{name}.tif\n" for name in NAMES]
    (tmp_path / "md5.txt").write_text("".join(sums[:3]) + sums[4])
    with serve(tmp_path / "archive") as archive:
        archive.corrupt["10248/data/m2.tif"] = 100
        settings = {"base_url": archive.url, "listing": str(tmp_path / "md5.txt")}
        config = edited_config(sections("empiar:10248/data/m[0-3].tif", tolerated=0.5, **settings))
        done = snakemake("--cores", "2", "--until", "import_movies", directory=tmp_path / "run", config=config)
        assert done.returncode == 0, done.stderr[-3000:]
        assert all(path != "10248/data/" for _, path, _ in archive.requests)
    rows = read_table(tmp_path / "run/movies/import_movies/batch_0001_movies.star", "movies").rows
    assert list(rows["crpItem"]) == ["m0", "m1"]
    lost = read_rejections(tmp_path / "run/movies/fetch_movies/batch_0001_rejected.tsv")
    assert "its md5 is" in lost[0].reason


def test_failures_that_are_few_in_each_batch_and_many_in_the_run_stop_it(tmp_path: Path, edited_config: Edited) -> None:
    make_movies(tmp_path / "movies")
    for name in ("m1", "m4"):
        (tmp_path / "movies" / f"{name}.tif").write_bytes(b"")
    movies = f"{tmp_path}/movies/*.tif"
    # a third of each batch of three failed: no batch alone says anything, together they are a third of the run
    config = edited_config(sections(movies, tolerated=0.3))
    stopped = snakemake("--cores", "1", "--until", "import_movies", directory=tmp_path / "run", config=config)
    assert stopped.returncode != 0
    assert (
        "2 of the 6 items of the run (all batches together) failed, more than the allowed share of 30%"
        in stopped.stderr
    )
    assert "empty (0 bytes)" in stopped.stderr
    folder = tmp_path / "run" / "movies" / "import_movies"
    assert len(list(folder.glob("*_movies.star"))) == 1
    # what is mended on the disk counts no more
    make_movies(tmp_path / "movies")
    done = snakemake("--cores", "1", "--until", "import_movies", directory=tmp_path / "run", config=config)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(folder.glob("*_movies.star"))) == 2
