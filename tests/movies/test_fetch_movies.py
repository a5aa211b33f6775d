"""Movies of an archive are received whole or quarantined with the reason, and the others go on."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryopipe.config.movies import FetchMovies, ImportMovies
from cryopipe.context import Context
from cryopipe.errors import CryopipeError, InputError
from cryopipe.io.movies import write_movie
from cryopipe.io.star import read_blocks, read_rejections, read_table
from cryopipe.movies import fetch_movies, import_movies
from tests.archive_server import Archive, serve

NAMES = [f"m{i}" for i in range(6)]
FACTS = {"pixel_size_A": 0.5, "voltage_kV": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "archive" / "10248" / "data"
    for seed, name in enumerate(NAMES):
        rng = np.random.default_rng(seed)
        write_movie(data / f"{name}.tif", (rng.poisson(0.5, (40, 60)).astype(np.uint16) for _ in range(4)), 0.5)
    with serve(tmp_path / "archive") as server:
        yield server


def source(name: str, folder: str = "10248/data") -> str:
    return f"empiar:{folder}/{name}.tif"


def run(archive: Archive, *, tolerated: float = 1.0, **options: Any) -> tuple[list[dict[str, Any]], dict[str, str]]:
    settings = {"paths": list(map(source, NAMES)), "base_url": archive.url, "attempts": 3, "wait_s": 0.01, **options}
    outputs = {"fetched": Path("fetched.star"), "rejected": Path("fetch_rejected.tsv")}
    context = Context("fetch_movies", Path("work"), max_failed_fraction=tolerated)
    fetch_movies.main({}, outputs, FetchMovies.model_validate(settings), context)
    rejected = {r.item: r.reason for r in read_rejections(outputs["rejected"])}
    return read_blocks(outputs["fetched"])["fetched"].to_dict("records"), rejected


def test_whatever_the_server_does_a_movie_is_whole_or_quarantined_and_the_others_go_on(archive: Archive) -> None:
    data = archive.folder / "10248" / "data"
    sums = {source(name): hashlib.sha256((data / f"{name}.tif").read_bytes()).hexdigest() for name in NAMES}
    archive.drop["10248/data/m0.tif"] = [1500]
    archive.drop["10248/data/m1.tif"] = [1000]
    archive.ignore_range["10248/data/m1.tif"] = 1
    archive.wrong_size["10248/data/m2.tif"] = 1
    (data / "m3.tif").unlink()
    archive.corrupt["10248/data/m4.tif"] = 1_000
    rows, rejected = run(archive, checksums=sums)
    assert [row["crpItem"] for row in rows] == ["m0", "m1", "m2", "m5"]
    assert len(rows) + len(rejected) == len(NAMES)
    assert "404 Not Found" in rejected["m3"]
    assert f"instead of {sums[source('m4')]}" in rejected["m4"]
    assert archive.ranges("10248/data/m4.tif") == [None] * 3
    assert archive.ranges("10248/data/m0.tif") == [None, "bytes=1500-"]
    for row in rows:
        path = Path(row["rlnMicrographMovieName"])
        assert path.read_bytes() == (data / path.name).read_bytes()
        assert row["crpBytes"] == path.stat().st_size
        assert row["crpChecksum"] == sums[row["crpSource"]]


def test_what_is_there_is_not_received_again(archive: Archive) -> None:
    first, _ = run(archive)
    archive.requests.clear()
    again, _ = run(archive)
    assert again == first
    assert archive.requests == []
    Path(first[2]["rlnMicrographMovieName"]).unlink()
    assert run(archive)[0] == first
    assert {path for _, path, _ in archive.requests} == {"10248/data/m2.tif"}


def test_runs_can_share_a_folder(archive: Archive, tmp_path: Path) -> None:
    run(archive, folder=str(tmp_path / "shared"))
    shutil.rmtree("work")
    archive.requests.clear()
    rows, _ = run(archive, folder=str(tmp_path / "shared"))
    assert len(rows) == len(NAMES)
    assert {method for method, _, _ in archive.requests} == {"HEAD"}


def add_twin(archive: Archive, folder: str) -> bytes:
    """Put a movie m0 into another folder of the archive, as large as the first to the byte, and return its bytes."""
    data = bytearray((archive.folder / "10248" / "data" / "m0.tif").read_bytes())
    data[-1] ^= 1
    (archive.folder / folder).mkdir(parents=True)
    (archive.folder / folder / "m0.tif").write_bytes(data)
    return bytes(data)


@pytest.mark.parametrize("twin", ["10146/data", "10248/data/day 2"], ids=["of two entries", "of one entry"])
def test_movies_of_one_name_and_size_in_a_shared_folder_are_not_taken_for_one_another(
    archive: Archive, tmp_path: Path, twin: str
) -> None:
    other = add_twin(archive, twin)
    found = {}
    for folder in ("10248/data", twin):
        shutil.rmtree("work", ignore_errors=True)
        rows, _ = run(archive, folder=str(tmp_path / "shared"), paths=[source("m0", folder)])
        found[folder] = Path(rows[0]["rlnMicrographMovieName"])
        assert found[folder] == tmp_path / "shared" / folder / "m0.tif"
    assert found["10248/data"].read_bytes() == (archive.folder / "10248" / "data" / "m0.tif").read_bytes()
    assert found[twin].read_bytes() == other


def test_a_kept_row_is_that_of_its_source_and_not_of_another_entrys_file_of_that_name(archive: Archive) -> None:
    other = add_twin(archive, "10146/data")
    run(archive, paths=[source("m0")])
    rows, _ = run(archive, paths=[source("m0", "10146/data")])
    assert rows[0]["crpSource"] == "empiar:10146/data/m0.tif"
    assert Path(rows[0]["rlnMicrographMovieName"]).read_bytes() == other


def test_a_movie_that_comes_later_does_not_make_the_others_be_received_again(archive: Archive) -> None:
    first, _ = run(archive, paths=[source("m0"), source("m1")])
    archive.requests.clear()
    rows, _ = run(archive, paths=[source("m0"), source("m1"), source("m2")])
    assert rows[:2] == first
    assert {path for method, path, _ in archive.requests if method == "GET"} == {"10248/data/m2.tif"}


def test_a_place_where_nothing_can_be_written_stops_the_run_and_quarantines_nothing(archive: Archive) -> None:
    Path("full").mkdir()
    Path("full", "10248").write_text("a file where a folder should be")
    with pytest.raises(CryopipeError, match=r"full/10248/data: cannot be written") as stop:
        run(archive, folder="full")
    assert not isinstance(stop.value, InputError)
    Path("full", "10248").unlink()
    (Path("full") / "10248" / "data" / "m1.tif").mkdir(parents=True)
    with pytest.raises(CryopipeError, match=r"m1\.tif: cannot be written \(Is a directory\)"):
        run(archive, folder="full", connections=1)
    assert not Path("fetched.star").exists()


def test_an_archive_that_gives_too_little_stops_the_run(archive: Archive) -> None:
    shutil.rmtree(archive.folder / "10248")
    with pytest.raises(CryopipeError, match=r"2 of 6 items failed, more than the allowed share of 20%.*404 Not Found"):
        run(archive, tolerated=0.2, connections=1)


def test_progress_of_a_long_file_is_said_now_and_then(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fetch_movies, "_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, logger="cryopipe"):
        run(archive)
    assert "m0: 0 of 0 MB, " in caplog.text
    assert "fetch_movies: 6 of 6 items" in caplog.text
    assert "6 of 6 movies are there, 0.00 GB" in caplog.text


def test_the_import_takes_what_was_received_and_the_groups_see_the_archives_names(archive: Archive) -> None:
    (archive.folder / "10248" / "data" / "m3.tif").unlink()
    run(archive)
    groups = [{"name": "even", "files": "data/m[024].tif"}, {"name": "odd", "files": "data/m[135].tif", "cs_mm": 2.6}]
    params = ImportMovies.model_validate({**FACTS, "optics_groups": groups})
    outputs = {"movies": Path("movies.star"), "rejected": Path("rejected.tsv")}
    import_movies.main(
        {"fetched": Path("fetched.star")}, outputs, params, Context("import_movies", Path("work_import"))
    )
    table = read_table(outputs["movies"], "movies")
    assert dict(zip(table.rows["crpItem"], table.rows["rlnOpticsGroup"], strict=True)) == {
        "m0": 1, "m1": 2, "m2": 1, "m4": 1, "m5": 2,
    }  # fmt: skip
    assert list(table.optics["rlnSphericalAberration"]) == [2.7, 2.6]


def test_an_empty_batch_gives_an_empty_table(archive: Archive) -> None:
    assert run(archive, paths=[]) == ([], {})
    params = ImportMovies.model_validate(FACTS)
    outputs = {"movies": Path("movies.star"), "rejected": Path("rejected.tsv")}
    import_movies.main(
        {"fetched": Path("fetched.star")}, outputs, params, Context("import_movies", Path("work_import"))
    )
    assert len(read_table(outputs["movies"], "movies")) == 0
