from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cryopipe.config.movies import ImportMovies
from cryopipe.context import Context
from cryopipe.errors import ConfigError, CryopipeError, InputError
from cryopipe.io.movies import write_movie
from cryopipe.io.star import StarTable, concatenate, read_rejections, read_table
from cryopipe.movies import import_movies
from cryopipe.movies.movie_list import movie_entries
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
    assert "header has 0.5006 Å per pixel, but dataset.pixel_size_A has 0.5 Å" in rejected["pixel"]
    assert "frame 1 is blank: all pixels have the value 0" in rejected["blank"]
    assert "the movie does not exist" in rejected["gone"]


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
    assert "the headers of 1 movies (a ...) have no pixel size" in caplog.text


def test_a_movie_with_another_number_of_frames_is_warned_of_or_refused(tmp_path, caplog):
    paths = [make_movie(tmp_path / "a.tif"), make_movie(tmp_path / "b.tif"), make_movie(tmp_path / "c.tif", n=3)]
    with caplog.at_level(logging.WARNING, logger="cryopipe"):
        table, _ = run(tmp_path, paths)
    assert len(table) == 3
    assert "c has 3 frames, but most movies have 6" in caplog.text
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
    assert "frame 2 is blank: all pixels have the value 0" in rejected["a"]


def test_a_frame_with_a_value_that_is_no_number_is_quarantined(tmp_path):
    frames = np.random.default_rng(1).random((4, 40, 60)).astype(np.float32)
    frames[3, 20, 30] = np.nan
    write_movie(tmp_path / "a.tif", iter(frames), 0.5)
    table, rejected = run(tmp_path, [str(tmp_path / "a.tif")])
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


def bytes_movie(path: Path, frames: np.ndarray) -> str:
    """Write a movie of signed bytes as other programs do; tifffile keeps the type."""
    tifffile.imwrite(path, frames, photometric="minisblack")
    return str(path)


@pytest.mark.parametrize(
    ("centre", "signed", "wrapped"),
    [(0, True, False), (-30, True, False), (120, False, True), (200, False, True), (60, False, False)],
    ids=["around zero", "mostly negative", "half above 127", "all above 127", "none above 127"],
)
def test_unsigned_bytes_that_are_marked_as_signed_are_quarantined(tmp_path, centre, signed, wrapped):
    # grey values of standard deviation 10 around their centre, as what they are and as what their type makes of them
    values = np.random.default_rng(3).normal(centre, 10, (4, 40, 60)).round()
    frames = values.astype(np.int8) if signed else values.astype(np.uint8).view(np.int8)
    table, rejected = run(tmp_path, [bytes_movie(tmp_path / "a.tif", frames)])
    assert len(table) == 1 - wrapped
    assert ("unsigned bytes marked as signed" in rejected.get("a", "")) == wrapped


def test_bytes_that_mean_either_of_two_things_are_refused_and_not_read_as_one_of_them(tmp_path):
    rng = np.random.default_rng(4)
    grey = rng.normal(60, 10, (4, 40, 60)).round().astype(np.int8)
    less_128 = (grey.astype(np.int16) - 128).astype(np.int8)
    unsigned = (grey.astype(np.int16) + 128).astype(np.uint8)
    assert less_128.tobytes() == unsigned.tobytes()
    bar = rng.normal(60, 10, (4, 40, 60))
    bar[:, :, :30] -= 150  # half of the frame lies on a grid bar
    for name, frames in (("a", less_128), ("b", bar.round().astype(np.int8))):
        table, rejected = run(tmp_path, [bytes_movie(tmp_path / f"{name}.tif", frames)])
        assert len(table) == 0
        assert "the file does not tell which. Write the movie with the measured values" in rejected[name]


def test_a_header_one_percent_off_is_quarantined_in_every_format(tmp_path):
    paths = [make_movie(tmp_path / name, pixel_A=0.505) for name in ("a.tif", "b.mrcs")]
    table, rejected = run(tmp_path, paths)
    assert len(table) == 0
    for item in ("a", "b"):
        assert "the header has 0.505 Å per pixel, but dataset.pixel_size_A has 0.5 Å" in rejected[item]


def test_a_given_frame_size_is_that_of_all_batches(tmp_path):
    paths = [make_movie(tmp_path / f"{name}.tif", shape=(40, 58)) for name in "ab"]
    table, rejected = run(tmp_path, [*paths, make_movie(tmp_path / "c.tif")], frame_size=(60, 40))
    assert list(table.rows["crpItem"]) == ["c"]
    assert "frames have 58 x 40 px, but 60 x 40 are expected" in rejected["a"]
    assert list(rejected) == ["a", "b"]


@pytest.mark.parametrize("suffix", [".mrcs", ".tif", ".eer"])
def test_movies_cut_off_at_any_place_are_quarantined_and_the_counts_add_up(tmp_path, suffix):
    if suffix == ".eer":
        layout = (7, 2, 2)
        readout = encode_readout([(3, 1, 0, 0), (50, 20, 1, 1)], (40, 60), layout, fixed=False)
        write_eer(tmp_path / f"whole{suffix}", [readout] * 80, (40, 60), 65001, layout)
    else:
        make_movie(tmp_path / f"whole{suffix}")
    data = (tmp_path / f"whole{suffix}").read_bytes()
    cuts = [0, 7, 500, len(data) // 2, len(data) - 1]
    for i, cut in enumerate(cuts):
        (tmp_path / f"cut{i}{suffix}").write_bytes(data[:cut])
    table, rejected = run(tmp_path, [str(p) for p in sorted(tmp_path.glob(f"*{suffix}"))])
    assert list(table.rows["crpItem"]) == ["whole"]
    assert sorted(rejected) == [f"cut{i}" for i in range(len(cuts))]
    assert "empty (0 bytes)" in rejected["cut0"]


def test_a_movie_that_may_not_be_read_or_is_a_folder_is_quarantined(tmp_path):
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "loop.mrcs").symlink_to(tmp_path / "loop.mrcs")
    table, rejected = run(
        tmp_path, [make_movie(tmp_path / "a.tif"), *(str(tmp_path / n) for n in ("folder.tif", "loop.mrcs"))]
    )
    assert list(table.rows["crpItem"]) == ["a"]
    assert sorted(rejected) == ["folder", "loop"]


def test_a_value_that_is_no_number_in_the_middle_is_found_when_all_frames_are_checked(tmp_path):
    frames = np.random.default_rng(1).random((4, 40, 60)).astype(np.float32)
    frames[1, 20, 30] = np.inf
    write_movie(tmp_path / "a.tif", iter(frames), 0.5)
    assert run(tmp_path, [str(tmp_path / "a.tif")])[1] == {}
    _, rejected = run(tmp_path, [str(tmp_path / "a.tif")], check_frames="all")
    assert "frame 2 has values that are not finite" in rejected["a"]


def test_the_exposure_after_fifty_frames_is_that_before_plus_fifty_times_that_of_one(tmp_path):
    paths = [make_movie(tmp_path / "a.tif", n=50), make_movie(tmp_path / "b.tif", n=49)]
    table, _ = run(tmp_path, paths, dose_per_frame_e_A2=0.7, pre_exposure_e_A2=1.3)
    assert list(table.rows["crpTotalExposure"]) == [1.3 + 50 * 0.7, 1.3 + 49 * 0.7]
    assert set(table.rows["rlnMicrographDoseRate"]) == {0.7}
    assert set(table.rows["rlnMicrographPreExposure"]) == {1.3}
    entry = movie_entries(table)["a"]
    assert (entry.dose_per_frame_e_A2, entry.pre_exposure_e_A2) == (0.7, 1.3)
    unknown, _ = run(tmp_path, paths)
    assert movie_entries(unknown)["a"].dose_per_frame_e_A2 is None


def test_readouts_that_fill_no_frame_add_no_exposure(tmp_path, caplog):
    layout = (7, 1, 1)
    readout = encode_readout([(3, 1, 0, 0), (50, 20, 1, 1)], (40, 60), layout, fixed=False)
    write_eer(tmp_path / "a.eer", [readout] * 23, (40, 60), 65002, layout)
    with caplog.at_level(logging.WARNING, logger="cryopipe"):
        table, _ = run(
            tmp_path, [str(tmp_path / "a.eer")], eer_grouping=10, dose_per_frame_e_A2=1.25, pre_exposure_e_A2=2.0
        )
        assert (table.rows["crpFrames"][0], table.rows["crpTotalExposure"][0]) == (2, 4.5)
        assert "an EER frame of" not in caplog.text
        run(tmp_path, [str(tmp_path / "a.eer")], eer_grouping=10, dose_per_frame_e_A2=0.02)
    assert "an EER frame of 0.02 e/Å² (10 readouts) is unusual: choose eer_grouping" in caplog.text


def test_movies_of_several_groups_carry_the_facts_of_their_own(tmp_path):
    paths = []
    for folder in ("day1", "day2"):
        (tmp_path / folder).mkdir()
        paths += [make_movie(tmp_path / folder / f"{folder}_{i}.tif", pixel_A=0.5) for i in range(2)]
    groups = [
        {"name": "first", "files": "day1/*.tif"},
        {"name": "second", "files": "day2/*.tif", "voltage_kV": 200.0, "amplitude_contrast": 0.07},
    ]
    table, rejected = run(tmp_path, paths, optics_groups=groups)
    assert rejected == {}
    assert list(table.rows["rlnOpticsGroup"]) == [1, 1, 2, 2]
    optics = table.optics.set_index("rlnOpticsGroupName")
    assert list(optics["rlnVoltage"]) == [300, 200]
    assert list(optics["rlnAmplitudeContrast"]) == [0.1, 0.07]
    assert list(optics["rlnSphericalAberration"]) == [2.7, 2.7]
    # a batch of one group alone numbers the groups alike, so that batches join
    alone, _ = run(tmp_path, paths[2:], optics_groups=groups)
    joined = concatenate([table.with_rows(table.rows[:2]), alone])
    assert joined.optics.equals(table.optics)
    assert joined.rows.equals(table.rows)


@pytest.mark.parametrize(("files", "which"), [("day*", "first and second"), ("night/*", "none")])
def test_a_movie_of_no_group_or_of_two_is_refused(tmp_path, files, which):
    (tmp_path / "day1").mkdir()
    groups = [{"name": "first", "files": files}, {"name": "second", "files": files}]
    with pytest.raises(ConfigError, match=f"must belong to exactly one group, but {which} of first, second matches"):
        run(tmp_path, [make_movie(tmp_path / "day1" / "a.tif")], optics_groups=groups)
