from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from cryopipe.config.movies import ImportMovies
from cryopipe.context import Context
from cryopipe.errors import ConfigError, CryopipeError, InputError
from cryopipe.io.movies import write_movie
from cryopipe.io.star import StarTable, read_rejections, read_table
from cryopipe.movies import import_movies
from tests.io.eer_encoder import encode_readout, write_eer

FACTS = {"pixel_size_A": 0.5, "voltage_kV": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}
DOSE = 2.0  # e/Å²/frame; 0.5 electrons a pixel


def make_movie(
    path: Path, *, n: int = 6, shape: tuple[int, int] = (40, 60), seed: int = 0, pixel_A: float = 0.5
) -> str:
    rng = np.random.default_rng(seed)
    write_movie(path, (rng.poisson(0.5, shape).astype(np.uint16) for _ in range(n)), pixel_A)
    return str(path)


def run(
    tmp_path: Path, paths: list[str], *, tolerated: float = 1.0, **options: object
) -> tuple[StarTable, dict[str, str]]:
    params = ImportMovies.model_validate({"paths": paths, **FACTS, **options})
    outputs = {"movies": tmp_path / "movies.star", "rejected": tmp_path / "rejected.tsv"}
    context = Context("import_movies", tmp_path / "work", threads=2, max_failed_fraction=tolerated)
    import_movies.main({}, outputs, params, context)
    rejected = {r.item: r.reason for r in read_rejections(outputs["rejected"])}
    return read_table(outputs["movies"], "movies"), rejected


def test_good_movies_of_all_formats_are_registered_with_their_optics(tmp_path):
    paths = [make_movie(tmp_path / name, seed=i) for i, name in enumerate(["001.tif", "b.mrcs", "c.tiff"])]
    table, rejected = run(tmp_path, paths, dose_per_frame_e_A2=DOSE)
    assert rejected == {}
    assert list(table.rows["crpItem"]) == ["001", "b", "c"]
    assert list(table.rows["rlnMicrographMovieName"]) == paths
    assert list(table.rows["crpFrames"]) == [6, 6, 6]
    assert set(table.rows["rlnImageSizeX"]) == {60}
    assert set(table.rows["rlnImageSizeY"]) == {40}
    assert len(set(table.rows["crpFirst64KiBSha256"])) == 3
    optics = table.optics.iloc[0]
    assert optics["rlnMicrographOriginalPixelSize"] == 0.5
    assert optics["rlnVoltage"] == 300
    assert optics["rlnSphericalAberration"] == 2.7
    assert "rlnMicrographPixelSize" not in table.optics


def test_each_bad_movie_is_quarantined_with_its_reason_and_the_counts_add_up(tmp_path):
    good = [make_movie(tmp_path / f"good{i}.tif", seed=i) for i in range(3)]
    (tmp_path / "empty.tif").write_bytes(b"")
    whole = Path(make_movie(tmp_path / "whole.mrcs")).read_bytes()
    (tmp_path / "short.mrcs").write_bytes(whole[:-5])
    make_movie(tmp_path / "small.tif", shape=(40, 58))
    make_movie(tmp_path / "pixel.tif", pixel_A=0.5006)
    write_movie(tmp_path / "blank.tif", [np.zeros((40, 60), np.uint8)] * 6, 0.5)
    bad = [
        str(tmp_path / f"{n}") for n in ("empty.tif", "short.mrcs", "small.tif", "pixel.tif", "blank.tif", "gone.tif")
    ]
    table, rejected = run(tmp_path, [*bad[:3], *good, *bad[3:]])
    assert list(table.rows["crpItem"]) == ["good0", "good1", "good2"]
    assert len(table) + len(rejected) == 9
    assert "empty (0 bytes)" in rejected["empty"]
    assert "cut off" in rejected["short"]
    assert "58 x 40 px in an optics group of 60 x 40 px" in rejected["small"]
    assert "header says 0.5006 Å/px, the configuration 0.5" in rejected["pixel"]
    assert "frame 1 have the value 0" in rejected["blank"]
    assert "no such movie" in rejected["gone"]


@pytest.mark.parametrize(("ratio", "accepted"), [(1.0009, True), (1.0012, False)])
def test_header_and_configuration_may_differ_by_one_in_a_thousand(tmp_path, ratio, accepted):
    table, rejected = run(tmp_path, [make_movie(tmp_path / "a.tif", pixel_A=0.5 * ratio)])
    assert (len(table) == 1) == accepted
    assert (len(rejected) == 0) == accepted


def test_a_header_of_exactly_one_angstrom_counts_as_not_set_and_is_logged(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="cryopipe"):
        table, rejected = run(tmp_path, [make_movie(tmp_path / "a.mrcs", pixel_A=1.0)])
    assert len(table) == 1
    assert rejected == {}
    assert "no pixel size in the header of 1 movies (a ...)" in caplog.text


def test_a_movie_with_another_number_of_frames_is_warned_of_or_refused(tmp_path, caplog):
    paths = [make_movie(tmp_path / "a.tif"), make_movie(tmp_path / "b.tif"), make_movie(tmp_path / "c.tif", n=3)]
    with caplog.at_level(logging.WARNING, logger="cryopipe"):
        table, _ = run(tmp_path, paths)
    assert len(table) == 3
    assert "c has 3 frames, most movies 6" in caplog.text
    table, rejected = run(tmp_path, paths, frames=6)
    assert list(rejected) == ["c"]
    assert "3 frames, but 6 are expected" in rejected["c"]


def test_two_movies_of_one_name_are_refused(tmp_path):
    (tmp_path / "x").mkdir()
    paths = [make_movie(tmp_path / "a.tif"), make_movie(tmp_path / "x" / "a.mrcs")]
    with pytest.raises(InputError, match=r"'a' belongs to more than one file .*a\.tif, .*a\.mrcs"):
        run(tmp_path, paths)


@pytest.mark.parametrize(
    ("dose", "warned"),
    [(DOSE, False), (DOSE / 4, True), (DOSE * 6, True)],
    ids=["per Å²", "per pixel", "in all"],
)
def test_an_exposure_that_contradicts_the_counts_is_warned_of(tmp_path, caplog, dose, warned):
    with caplog.at_level(logging.WARNING, logger="cryopipe"):
        run(tmp_path, [make_movie(tmp_path / "a.tif")], dose_per_frame_e_A2=dose)
    assert ("counts per pixel and frame, but dataset.dose_per_frame_e_A2" in caplog.text) == warned


def test_a_total_exposure_that_no_specimen_gets_is_refused(tmp_path):
    _, rejected = run(tmp_path, [make_movie(tmp_path / "a.tif", n=12)], dose_per_frame_e_A2=50)
    assert "12 frames of 50.0 e/Å²" in rejected["a"]
    assert "600 e/Å²" in rejected["a"]


def test_damage_in_the_middle_is_found_when_all_frames_are_checked(tmp_path):
    path = Path(make_movie(tmp_path / "a.mrcs", n=3))
    other = Path(make_movie(tmp_path / "b.mrcs", n=3, seed=1))
    data = bytearray(path.read_bytes())
    frame = 40 * 60 * 2
    data[1024 + frame : 1024 + 2 * frame] = bytes(frame)
    path.write_bytes(data)
    assert run(tmp_path, [str(path), str(other)])[1] == {}
    _, rejected = run(tmp_path, [str(path), str(other)], check_frames="all")
    assert "frame 2 have the value 0" in rejected["a"]


def test_a_frame_with_a_value_that_is_no_number_is_quarantined(tmp_path):
    frames = np.random.default_rng(1).random((4, 40, 60)).astype(np.float32)
    frames[3, 20, 30] = np.nan
    write_movie(tmp_path / "a.mrcs", iter(frames), 0.5)
    table, rejected = run(tmp_path, [str(tmp_path / "a.mrcs")])
    assert len(table) == 0
    assert "frame 4 has values that are not finite" in rejected["a"]


def test_too_many_failures_stop_the_run(tmp_path):
    paths = [make_movie(tmp_path / "a.tif"), str(tmp_path / "gone.tif")]
    with pytest.raises(CryopipeError, match="1 of 2 items failed"):
        run(tmp_path, paths, tolerated=0.2)


def test_an_empty_batch_gives_an_empty_table_with_all_columns(tmp_path):
    table, rejected = run(tmp_path, [])
    assert len(table) == 0
    assert list(table.rows.columns) == list(import_movies.COLUMNS)
    assert len(table.optics) == 1
    assert rejected == {}


def test_eer_movies_carry_how_they_were_fractionated(tmp_path):
    shape, layout = (40, 60), (7, 2, 2)
    readout = encode_readout([(3, 1, 0, 0), (50, 20, 1, 1)], shape, layout, fixed=False)
    write_eer(tmp_path / "a.eer", [readout] * 11, shape, 65001, layout)
    table, rejected = run(tmp_path, [str(tmp_path / "a.eer")], eer_grouping=5, eer_upsampling=2)
    assert rejected == {}
    row = table.rows.iloc[0]
    assert (row["crpFrames"], row["rlnImageSizeX"], row["rlnImageSizeY"]) == (2, 120, 80)
    assert (row["rlnEERGrouping"], row["rlnEERUpsampling"]) == (5, 2)


def test_the_order_of_the_inputs_changes_nothing_but_the_order_of_the_rows(tmp_path):
    paths = [make_movie(tmp_path / f"{name}.tif", seed=i) for i, name in enumerate("abcd")]
    forward, _ = run(tmp_path, paths)
    backward, _ = run(tmp_path, paths[::-1])
    assert forward.rows.iloc[::-1].reset_index(drop=True).equals(backward.rows)


def test_a_repeated_run_reuses_kept_rows_until_a_file_changes(tmp_path, monkeypatch):
    path = make_movie(tmp_path / "a.tif")
    first, _ = run(tmp_path, [path])

    def fail(*arguments: object) -> None:
        raise AssertionError("checked again")

    with monkeypatch.context() as patch:
        patch.setattr(import_movies, "check_movie", fail)
        again, _ = run(tmp_path, [path])
    assert again.rows.equals(first.rows)
    make_movie(tmp_path / "a.tif", n=7)
    os.utime(path, ns=(1, 1))
    assert run(tmp_path, [path])[0].rows["crpFrames"].tolist() == [7]


def test_missing_facts_are_named(tmp_path):
    params = ImportMovies.model_validate({"paths": [], **FACTS, "voltage_kV": None})
    with pytest.raises(ConfigError, match="voltage_kV"):
        import_movies.main({}, {}, params, Context("import_movies", tmp_path))
