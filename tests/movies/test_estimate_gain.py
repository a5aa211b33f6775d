"""Step estimate_gain and its parts against gains that are known (the method's acceptance tests)."""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cryopipe.config.movies import EstimateGain
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.io.movies import write_movie
from cryopipe.io.mrc import read_image, write_image
from cryopipe.io.star import StarTable, make_optics, read_table, write_table
from cryopipe.movies import estimate_gain
from cryopipe.movies.estimate_gain import defects_and_residual
from cryopipe.movies.gain.decision import GainDecision
from cryopipe.movies.gain.defects import find_defects, plan_repair, read_defects
from cryopipe.movies.gain.flat_field import flat_field, reproducibility, smooth_background
from cryopipe.movies.gain.orientation import ORIENTATIONS, SENSES, as_correction, score_orientations, turn
from cryopipe.movies.gain.rank import add_ideal_frame, rank_gain


def camera(shape: tuple[int, int], sd: float, seed: int) -> np.ndarray:
    """Response of a camera: the inverse of its multiplicative gain."""
    return 1.0 + sd * np.random.default_rng(seed).standard_normal(shape)


def exposed(response: np.ndarray, electrons: float, seed: int) -> np.ndarray:
    """Sum of frames with ``electrons`` per pixel, specimen and illumination included."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : 1j * response.shape[0], 0 : 1 : 1j * response.shape[1]]
    waves = [0.1 * np.sin(9 * x + a) * np.cos(7 * y + b) for a, b in rng.uniform(0, 6.28, (12, 2))]
    specimen = 1.0 + np.mean(waves, axis=0) + 0.2 * x  # twelve movies, one illumination
    return rng.poisson(electrons * response * specimen).astype(np.float32)


@functools.cache
def phantom(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return response (3 %) and sum of 50 frames of 512² with 1 e/px each: five fields of view, moving specimens."""
    rng = np.random.default_rng(seed)
    response = camera((512, 512), 0.03, seed + 1000)
    total = np.zeros((512, 512), np.float32)
    for _ in range(5):
        specimen = ndimage.gaussian_filter(rng.standard_normal((512, 512)), 4, mode="wrap")
        specimen *= 0.05 / specimen.std()
        for step in range(10):
            total += rng.poisson(response * (1 + np.roll(specimen, (step, -step // 2), (0, 1))))
    return response, total


def written(gain: np.ndarray, orientation: str, sense: str) -> np.ndarray:
    """Return the file whose turning by ``orientation`` and use in ``sense`` gives the multiplicative ``gain``."""
    values = gain if sense == "multiply" else 1.0 / gain
    angle = int(orientation.rsplit("rot", 1)[1]) // 90
    undone = np.rot90(values, -angle)
    return undone[:, ::-1] if orientation.startswith("mirror") else undone


@pytest.mark.parametrize("electrons", [100.0, 400.0, 1500.0])
def test_the_estimate_correlates_with_the_truth_as_counting_statistics_allow(electrons: float) -> None:
    response = camera((384, 384), 0.05, 1)
    field = flat_field(exposed(response, electrons, 2), sigma_px=32)
    correlation = np.corrcoef(field.response.ravel(), response.ravel())[0, 1]
    # σg / √(σg² + 1/N); 0.02 is the method's tolerance
    assert correlation == pytest.approx(0.05 / np.hypot(0.05, electrons**-0.5), abs=0.02)


def test_the_residual_of_the_true_gain_is_shot_noise() -> None:
    response = camera((384, 384), 0.03, 3)
    total = exposed(response, 500.0, 4) / response
    residual = flat_field(total.astype(np.float32), sigma_px=32).response
    assert residual.std() == pytest.approx(500.0**-0.5, rel=0.05)  # the method's 5 %


def test_pattern_and_noise_are_told_apart_by_two_halves() -> None:
    response = camera((384, 384), 0.04, 5)
    halves = exposed(response, 300.0, 6), exposed(response, 500.0, 7)
    found = reproducibility(*halves, sigma_px=32, good=np.ones(response.shape, bool))
    assert found.pattern_sd == pytest.approx(0.04, rel=0.05)  # 147,000 pixels: statistical error below 1 %
    assert found.electrons_per_pixel == pytest.approx(800.0 * 1.1, rel=0.1)  # the illumination averages 1.1


@pytest.mark.parametrize("seed", [8, 9, 10])
def test_all_sixteen_transforms_are_recovered(seed: int) -> None:
    response, total = phantom(seed)
    field = flat_field(total, sigma_px=32)
    for orientation in ORIENTATIONS:
        for sense in SENSES:
            file = written(1.0 / response, orientation, sense)
            best, second, *_ = score_orientations(file, field.response, field.good, sigma_px=32)
            assert (best.orientation, best.sense, best.shift_yx_px) == (orientation, sense, (0, 0))
            # σg / √(σg² + 1/N) · 512 = 106; 20 is asked for; chance reaches 5 to 6
            assert best.score > 80
            assert second.score < 8
            turned = as_correction(file, orientation=orientation, sense=sense)
            np.testing.assert_allclose(turned * response / np.mean(turned * response), 1.0, atol=1e-5)  # float32


@pytest.mark.parametrize("sd", [0.01, 0.03])
def test_columns_and_tile_borders_that_survive_a_mirror_do_not_blur_the_decision(sd: float) -> None:
    lines = np.zeros(512)
    lines[[127, 128, 255, 256, 383, 384]] = 0.1
    columns = 0.02 * np.random.default_rng(39).standard_normal(512)
    response = camera((512, 512), sd, 40) * (1 + lines + columns) * (1 + lines)[:, None]
    field = flat_field(exposed(response, 100.0, 41), sigma_px=32)
    best, second, *_ = score_orientations(
        written(1 / response, "rot180", "divide"), field.response, field.good, sigma_px=32
    )
    assert (best.orientation, best.sense) == ("rot180", "divide")
    assert best.score > 0.8 * 512 * sd / np.hypot(sd, 0.1)  # σg / √(σg² + 1/N) · 512, less tile borders
    assert best.score > 5 * second.score


def test_a_gain_is_recovered_from_two_electrons_a_pixel() -> None:
    response = camera((512, 512), 0.05, 30)
    field = flat_field(exposed(response, 2.0, 31), sigma_px=32)
    assert field.good.mean() > 0.999  # a tenth of the pixels counts nothing: that is chance, not death
    best, *_ = score_orientations(written(1 / response, "rot90", "multiply"), field.response, field.good, sigma_px=32)
    assert (best.orientation, best.sense) == ("rot90", "multiply")
    assert best.score > 20  # expected: 0.05 √2 · 512 = 36


def test_the_background_is_that_of_a_gaussian() -> None:
    y, x = np.mgrid[0:500, 0:700]
    image = (100 + 30 * np.sin(x / 90) + 20 * np.cos(y / 70)).astype(np.float32)
    good = np.random.default_rng(32).random(image.shape) > 0.02
    found = smooth_background(np.where(good, image, 1e6), good, 32.0)
    exact = ndimage.gaussian_filter(image, 32, mode="reflect")
    # boxes of whole blocks make σ 33.9 px, which takes 0.5 from these waves
    np.testing.assert_allclose(found[100:-100, 100:-100], exact[100:-100, 100:-100], atol=0.6)
    np.testing.assert_allclose(found, exact, atol=1.2)  # twice that at mirrored edges


def test_a_gain_of_another_shape_is_refused_with_both_shapes() -> None:
    response = np.ones((64, 96), np.float32)
    with pytest.raises(InputError, match=r"80 x 64 pixels.*96 x 64"):
        score_orientations(np.ones((64, 80), np.float32), response, response > 0, sigma_px=8)


def test_sideways_gains_are_tried_only_where_they_fit() -> None:
    response = camera((96, 128), 0.05, 10)
    field = flat_field(exposed(response, 200.0, 11), sigma_px=16)
    scores = score_orientations(
        np.ascontiguousarray(turn(1 / response, "rot270")), field.response, field.good, sigma_px=16
    )
    assert len(scores) == 8
    assert scores[0].orientation == "rot90"


@pytest.mark.parametrize("seed", [12, 13])
def test_planted_defects_are_found_and_no_others_and_the_residual_of_the_true_gain_is_shot_noise(seed: int) -> None:
    response, total = phantom(seed)
    places = np.random.default_rng(seed).choice(total.size, 20, replace=False)
    total = total.copy()
    total.flat[places[:10]] = 3 * total.flat[places[:10]] + 10
    total.flat[places[10:]] = 0
    truth = GainDecision((1 / response).astype(np.float32), "given", "")
    dead, hot, residual = defects_and_residual(total, flat_field(total, sigma_px=32), truth, EstimateGain())
    assert set(np.flatnonzero(hot)) == set(places[:10])
    assert set(np.flatnonzero(dead)) == set(places[10:])
    values = residual.response[~(dead | hot)]
    assert values.std() == pytest.approx(50**-0.5, rel=0.05)  # the method's 5 %
    # the method's 6 σ; among 262,000 Poisson numbers of mean 50 it is passed with a chance of 1 %
    assert np.abs(values - 1).max() < 6 * 50**-0.5


def test_uneven_illumination_makes_no_defects() -> None:
    y, x = np.mgrid[-1:1:1024j, -1:1:1024j]
    lit = 1 - 0.4 * (x**2 + y**2)  # a fifth is left in the corners
    total = np.random.default_rng(33).poisson(60.0 * lit).astype(np.float32)
    even = GainDecision(np.ones_like(total), "none", "")
    dead, hot, _ = defects_and_residual(total, flat_field(total, sigma_px=32), even, EstimateGain())
    assert (dead | hot).sum() == 0


@pytest.mark.parametrize("electrons", [5.0, 30.0])
def test_dark_pixels_are_dead_only_where_chance_makes_none(electrons: float) -> None:
    total = np.random.default_rng(34).poisson(electrons, (1500, 1500)).astype(np.float32)
    expected = np.full_like(total, electrons)
    total[40, 50] = 0
    dead, hot = find_defects(total, expected, np.ones_like(total), hot_sigma=6.0)
    assert hot.sum() == 0
    assert np.argwhere(dead).tolist() == ([[40, 50]] if electrons > 21 else [])
    total[60, 70] = np.nan
    assert find_defects(total, expected, np.ones_like(total), hot_sigma=6.0)[0][60, 70]


def test_replaced_pixels_fluctuate_like_their_neighbours() -> None:
    defects = np.array([[10, 10], [30, 41], [50, 3], [0, 63]])
    repair = plan_repair(defects, (64, 64))
    rng = np.random.default_rng(15)
    frames = rng.poisson(5.0, (2000, 64, 64)).astype(np.float32)
    for i, frame in enumerate(frames):
        frame[tuple(defects.T)] = 1e6
        repair.apply(frame, np.random.default_rng(i))
    variance = frames[:, defects[:, 0], defects[:, 1]].var(axis=0)
    assert np.all((variance > 0.8 * 5.0) & (variance < 1.25 * 5.0))  # the method's 0.8-1.25


def test_pixels_in_a_dead_block_are_drawn_from_the_frame() -> None:
    block = np.argwhere(np.ones((7, 7), bool)) + 20
    frame = np.random.default_rng(16).normal(100.0, 3.0, (64, 64)).astype(np.float32)
    frame[20:27, 20:27] = 0
    plan_repair(block, (64, 64)).apply(frame, np.random.default_rng(17))
    assert frame[20:27, 20:27].mean() == pytest.approx(100.0, abs=5 * 3.0 / 7)
    assert frame[20:27, 20:27].min() > 80


def test_a_defect_outside_the_frame_is_refused() -> None:
    with pytest.raises(InputError, match="x 70, y 3 is outside the frame of 64 x 64"):
        plan_repair(np.array([[3, 70]]), (64, 64))


def ideal_by_definition(frame: np.ndarray) -> np.ndarray:
    """Return the column-wise equalised frame: each value has the highest rank among its ties."""
    columns = np.sort(frame, axis=0)
    result = np.empty(frame.shape)
    for y, x in np.ndindex(frame.shape):
        rank = np.sum(columns[:, x] <= frame[y, x]) - 1
        result[y, x] = np.mean(columns[rank], dtype=np.float64)
    return result


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_the_rank_method_equals_its_definition_with_ties(dtype: str) -> None:
    rng = np.random.default_rng(18)
    frames = rng.poisson(2.0, (3, 40, 30))
    if dtype == "int16":
        frames -= 2
    if dtype == "uint16":
        frames *= 2000  # more levels than are counted one by one
    frames = frames.astype(dtype)
    ideal, expected = np.zeros((40, 30)), np.zeros((40, 30))
    for frame in frames:
        add_ideal_frame(frame, ideal)
        expected += ideal_by_definition(frame) + ideal_by_definition(frame.T).T
    np.testing.assert_allclose(ideal, expected, rtol=1e-12, atol=1e-12)
    observed = frames.sum(axis=0, dtype=np.float64)
    gain = np.divide(expected, 2 * observed, out=np.ones_like(expected), where=observed != 0)
    np.testing.assert_allclose(rank_gain(ideal, observed), gain / gain.mean(), rtol=1e-6, atol=1e-12)  # float32


def test_the_rank_method_finds_a_gain_of_rows_and_columns() -> None:
    rng = np.random.default_rng(19)
    response = (1 + 0.05 * rng.standard_normal(256))[:, None] * (1 + 0.05 * rng.standard_normal(256))
    ideal, total = np.zeros((256, 256)), np.zeros((256, 256))
    for _ in range(40):
        frame = rng.poisson(20 * response).astype(np.uint8)
        add_ideal_frame(frame, ideal)
        total += frame
    gain = rank_gain(ideal, total)
    for axis in (0, 1):
        assert np.corrcoef(gain.mean(axis=axis), 1 / response.mean(axis=axis))[0, 1] > 0.98


def make_run(
    folder: Path, response: np.ndarray, *, movies: int, electrons: float = 20.0, corrected: bool = False
) -> dict:
    rows = []
    for m in range(movies):
        rng = np.random.default_rng(100 + m)
        y, x = np.mgrid[0 : response.shape[0], 0 : response.shape[1]]
        a, b = rng.uniform(0, 6.28, 2)
        lit = 1 + 0.05 * np.sin(x / 60 + a) * np.cos(y / 50 + b)
        frames = [rng.poisson(electrons * lit * response).astype(np.float32) for _ in range(4)]
        frames = [f / response for f in frames] if corrected else frames
        path = folder / f"mov_{m:04d}.mrcs"
        write_movie(path, [f.astype(np.float32) for f in frames], 1.0)
        rows.append(path)
    import pandas as pd

    optics = make_optics(voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.1, movie_pixel_size_A=1.0)
    frame = pd.DataFrame(
        {"rlnMicrographMovieName": [str(p) for p in rows], "rlnOpticsGroup": 1, "crpItem": [p.stem for p in rows]}
    )
    write_table(folder / "movies.star", StarTable("movies", optics, frame))
    return {"movies": [folder / "movies.star"]}


def run(folder: Path, inputs: dict, *, threads: int = 2, **params: object) -> tuple[dict, np.ndarray]:
    names = {"gain": "gain.mrc", "estimated": "e.mrc", "residual": "r.mrc", "defects": "d.tsv", "summary": "g.json"}
    outputs = {key: folder / value for key, value in names.items()}
    context = Context(step="estimate_gain", work_dir=folder / "work", threads=threads, log=logging.getLogger("test"))
    estimate_gain.main(inputs, outputs, EstimateGain(**params), context)
    return json.loads(outputs["summary"].read_text()), read_image(outputs["gain"])[0]


def test_a_turned_divisive_gain_comes_out_multiplicative_and_upright(tmp_path: Path) -> None:
    response = camera((192, 160), 0.05, 20)
    inputs = make_run(tmp_path, response, movies=4)
    write_image(tmp_path / "given.mrc", written(1 / response, "mirror_rot90", "divide").astype(np.float32), 1.0)
    summary, gain = run(tmp_path, inputs | {"gain": tmp_path / "given.mrc"})
    assert summary["source"] == "given"
    assert summary["transform"] == {
        "orientation": "mirror_rot90", "mirror": True, "rot90": 90, "inverted": True, "shift_yx_px": [0, 0],
    }  # fmt: skip
    good = gain > 0
    product = (gain * response)[good]
    np.testing.assert_allclose(product / product.mean(), 1.0, atol=1e-5)
    assert good.mean() > 0.9999
    assert summary["residual"]["sd"] == pytest.approx(summary["residual"]["sd_expected_of_noise"], rel=0.05)
    assert len(read_defects(tmp_path / "d.tsv")) == (~good).sum()


def test_without_a_gain_the_estimate_is_used_where_it_removes_more_than_it_adds(tmp_path: Path) -> None:
    response = camera((192, 160), 0.10, 21)
    summary, gain = run(tmp_path, make_run(tmp_path, response, movies=4))
    assert summary["source"] == "estimated"
    good = gain > 0
    assert np.corrcoef(gain[good], 1 / response[good])[0, 1] > 0.8  # 320 electrons: 0.87 expected
    assert good.all()
    assert "electrons per pixel; 101 are needed" in summary["reason"]  # 1/σg²


def test_without_a_gain_a_poor_estimate_is_not_used(tmp_path: Path) -> None:
    summary, gain = run(tmp_path, make_run(tmp_path, camera((192, 160), 0.02, 22), movies=4))
    assert summary["source"] == "none"
    assert "would add more noise than it removes" in summary["reason"]
    assert set(np.unique(gain)) <= {0.0, 1.0}


def test_one_movie_alone_is_never_trusted_for_an_estimate(tmp_path: Path) -> None:
    summary, _ = run(tmp_path, make_run(tmp_path, camera((192, 160), 0.1, 23), movies=1))
    assert summary["source"] == "none"
    assert "one movie alone" in summary["reason"]


def test_movies_that_are_corrected_already_are_not_corrected_again(tmp_path: Path) -> None:
    response = camera((192, 160), 0.05, 24)
    inputs = make_run(tmp_path, response, movies=4, electrons=60.0, corrected=True)
    write_image(tmp_path / "given.mrc", (1 / response).astype(np.float32), 1.0)
    summary, gain = run(tmp_path, inputs | {"gain": tmp_path / "given.mrc"})
    assert summary["source"] == "none"
    assert "already corrected" in summary["reason"]
    assert gain[gain > 0].std() == 0


def test_one_corrected_movie_is_not_corrected_again_although_its_frames_share_a_specimen(tmp_path: Path) -> None:
    response = camera((192, 160), 0.05, 24)
    inputs = make_run(tmp_path, response, movies=1, electrons=200.0, corrected=True)
    write_image(tmp_path / "given.mrc", (1 / response).astype(np.float32), 1.0)
    summary, _ = run(tmp_path, inputs | {"gain": tmp_path / "given.mrc"})
    assert summary["source"] == "none"
    assert "already corrected" in summary["reason"]
    assert summary["electrons_per_pixel"] == pytest.approx(800.0, rel=0.05)


def test_one_movie_is_not_taken_for_corrected_where_its_gain_is_of_lines_alone(tmp_path: Path) -> None:
    response = np.ones((192, 1)) * (1 + 0.05 * np.random.default_rng(42).standard_normal(160))
    inputs = make_run(tmp_path, response, movies=1, electrons=200.0)
    write_image(tmp_path / "given.mrc", (1 / response).astype(np.float32), 1.0)
    with pytest.raises(InputError, match="ambiguous"):
        run(tmp_path, inputs | {"gain": tmp_path / "given.mrc"})


def test_corrected_movies_without_a_gain_pass_as_they_are(tmp_path: Path) -> None:
    inputs = make_run(tmp_path, camera((192, 160), 0.05, 29), movies=4, corrected=True)
    summary, gain = run(tmp_path, inputs)
    assert summary["source"] == "none"
    assert "already corrected" in summary["reason"]
    assert np.all(gain == 1)


def test_a_gain_that_does_not_matter_passes_although_its_orientation_is_open(tmp_path: Path) -> None:
    inputs = make_run(tmp_path, np.ones((192, 160)), movies=4)
    write_image(tmp_path / "given.mrc", camera((192, 160), 0.005, 35).astype(np.float32), 1.0)
    summary, _ = run(tmp_path, inputs | {"gain": tmp_path / "given.mrc"})
    assert summary["source"] == "given"
    assert "orientation not found, but the gain varies by only 0.496%" in summary["reason"]


def test_a_gain_of_another_shape_stops_the_run_with_its_file_and_the_remedy(tmp_path: Path) -> None:
    inputs = make_run(tmp_path, camera((96, 80), 0.05, 36), movies=2)
    write_image(tmp_path / "k3.mrc", np.ones((64, 80), np.float32), 1.0)
    with pytest.raises(InputError, match=r"k3\.mrc: .* 80 x 64 pixels.* 80 x 96. Give the gain of this camera"):
        run(tmp_path, inputs | {"gain": tmp_path / "k3.mrc"})


def test_threads_do_not_change_the_answer_for_one_movie(tmp_path: Path) -> None:
    inputs = make_run(tmp_path, camera((96, 96), 0.05, 37), movies=1)
    assert run(tmp_path, inputs, threads=1)[0] == run(tmp_path, inputs, threads=2)[0]


def test_an_unreadable_movie_is_left_out_and_none_left_is_an_error(tmp_path: Path) -> None:
    inputs = make_run(tmp_path, camera((96, 96), 0.05, 38), movies=3)
    (tmp_path / "mov_0001.mrcs").write_bytes(b"damaged")
    assert run(tmp_path, inputs)[0]["movies"] == 2
    for path in tmp_path.glob("*.mrcs"):
        path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="none of the 3 movies could be read"):
        run(tmp_path, inputs)


def registered(folder: Path, sizes: list[tuple[int, int]], *, sized: bool = True) -> dict:
    """Write movies of these frame sizes (x, y) and their tables, one a batch, as import_movies does; old tables had no sizes."""
    tables = []
    for i, (nx, ny) in enumerate(sizes):
        (folder / f"b{i}").mkdir()
        tables += make_run(folder / f"b{i}", camera((ny, nx), 0.05, 38), movies=1)["movies"]
        (folder / f"b{i}" / "mov_0000.mrcs").rename(folder / f"mov_{i}.mrcs")
        table = read_table(tables[-1], "movies")
        rows = table.rows.assign(rlnMicrographMovieName=str(folder / f"mov_{i}.mrcs"), crpItem=f"mov_{i}")
        rows = rows.assign(rlnImageSizeX=nx, rlnImageSizeY=ny) if sized else rows
        write_table(tables[-1], table.with_rows(rows))
    return {"movies": tables}


@pytest.mark.parametrize("odd", [0, 2], ids=["the first", "the last"])
def test_a_movie_of_another_size_is_left_out_with_a_warning_and_the_gain_is_that_of_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, odd: int
) -> None:
    sizes = [(96, 80)] * 3
    sizes[odd] = (80, 96)
    inputs = registered(tmp_path, sizes)
    with caplog.at_level(logging.WARNING, logger="test"):
        summary, gain = run(tmp_path, inputs)
    assert summary["movies"] == 2
    assert gain.shape == (80, 96)
    assert f"mov_{odd} is left out: its frames have 80 x 96 pixels, but most movies have 96 x 80" in caplog.text
    caplog.clear()
    alone, gain_of_the_others = run(tmp_path, {"movies": [t for i, t in enumerate(inputs["movies"]) if i != odd]})
    assert alone == summary
    assert np.array_equal(gain, gain_of_the_others)
    assert caplog.text == ""


def test_the_step_over_movies_is_counted_among_those_that_fit(tmp_path: Path) -> None:
    inputs = registered(tmp_path, [(80, 96), (96, 80), (80, 96), (96, 80), (96, 80)])
    assert run(tmp_path, inputs, movie_step=2)[0]["movies"] == 2


@pytest.mark.parametrize(
    ("sizes", "sized"),
    [
        ([(96, 80), (80, 96)], True),
        ([(96, 80), (96, 80), (80, 96), (64, 64)], True),
        ([(96, 80), (96, 80), (80, 96)], False),
    ],
    ids=["one of each", "half of all", "a table without sizes"],
)
def test_movies_of_which_no_size_is_that_of_most_are_refused(
    tmp_path: Path, sizes: list[tuple[int, int]], sized: bool
) -> None:
    with pytest.raises(InputError, match="One gain cannot fit both: run them as two datasets"):
        run(tmp_path, registered(tmp_path, sizes, sized=sized))


def test_a_gain_of_another_camera_stops_the_run_with_its_scores(tmp_path: Path) -> None:
    inputs = make_run(tmp_path, camera((192, 160), 0.05, 25), movies=4)
    write_image(tmp_path / "given.mrc", camera((192, 160), 0.05, 26).astype(np.float32), 1.0)
    with pytest.raises(InputError, match=r"given\.mrc: .*ambiguous: best score \d.*Give more movies"):
        run(tmp_path, inputs | {"gain": tmp_path / "given.mrc"})
    summary, _ = run(tmp_path, inputs | {"gain": tmp_path / "given.mrc"}, orientation="rot180", sense="multiply")
    assert "set by the user" in summary["reason"]


def test_a_shifted_gain_stops_the_run_with_the_shift(tmp_path: Path) -> None:
    response = camera((192, 160), 0.05, 27)
    inputs = make_run(tmp_path, response, movies=4)
    write_image(tmp_path / "given.mrc", np.roll(1 / response, (2, -3), (0, 1)).astype(np.float32), 1.0)
    with pytest.raises(InputError, match="shift by 3, -2 pixels"):
        run(tmp_path, inputs | {"gain": tmp_path / "given.mrc"})


def test_the_order_of_movies_does_not_matter(tmp_path: Path) -> None:
    response = camera((96, 96), 0.1, 28)
    inputs = make_run(tmp_path, response, movies=3)
    first = run(tmp_path, inputs)[0]
    table = read_table(tmp_path / "movies.star", "movies")
    write_table(tmp_path / "movies.star", table.with_rows(table.rows.iloc[::-1]))
    assert run(tmp_path, inputs)[0] == first
