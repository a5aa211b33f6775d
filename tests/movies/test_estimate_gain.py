"""Step estimate_gain and its parts against gains that are known (acceptance tests of the method's card)."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from cryopipe.config.movies import EstimateGain
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.io.movies import write_movie
from cryopipe.io.mrc import read_image, write_image
from cryopipe.io.star import StarTable, make_optics, write_table
from cryopipe.movies import estimate_gain
from cryopipe.movies.defects import find_defects, plan_repair, read_defects
from cryopipe.movies.flat_field import flat_field, reproducibility
from cryopipe.movies.gain_orientation import ORIENTATIONS, SENSES, as_correction, score_orientations, turn
from cryopipe.movies.rank_gain import equalise_columns


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
    # σg / √(σg² + 1/N); 0.02 is the card's tolerance
    assert correlation == pytest.approx(0.05 / np.hypot(0.05, electrons**-0.5), abs=0.02)


def test_the_residual_of_the_true_gain_is_shot_noise() -> None:
    response = camera((384, 384), 0.03, 3)
    total = exposed(response, 500.0, 4) / response
    residual = flat_field(total.astype(np.float32), sigma_px=32).response
    assert residual.std() == pytest.approx(500.0**-0.5, rel=0.05)  # the card's 5 %


def test_pattern_and_noise_are_told_apart_by_two_halves() -> None:
    response = camera((384, 384), 0.04, 5)
    halves = exposed(response, 300.0, 6), exposed(response, 500.0, 7)
    found = reproducibility(*halves, sigma_px=32, good=np.ones(response.shape, bool))
    assert found.pattern_sd == pytest.approx(0.04, rel=0.05)  # 147,000 pixels: statistical error below 1 %
    assert found.electrons_per_pixel == pytest.approx(800.0 * 1.1, rel=0.1)  # the illumination averages 1.1


@pytest.mark.parametrize("sense", SENSES)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_all_sixteen_transforms_are_recovered(orientation: str, sense: str) -> None:
    response = camera((256, 256), 0.03, 8)
    field = flat_field(exposed(response, 50.0, 9), sigma_px=32)
    file = written(1.0 / response, orientation, sense)
    best, second, *_ = score_orientations(file, field.response, field.good, sigma_px=32)
    assert (best.orientation, best.sense, best.shift_yx_px) == (orientation, sense, (0, 0))
    assert best.score > 20 > second.score
    turned = as_correction(file, orientation=orientation, sense=sense)
    np.testing.assert_allclose(turned * response / np.mean(turned * response), 1.0, atol=1e-5)  # float32


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


def test_planted_hot_and_dead_pixels_are_found_and_no_others() -> None:
    rng = np.random.default_rng(12)
    response = camera((512, 512), 0.03, 13)
    places = rng.choice(512 * 512, 20, replace=False)
    total = exposed(response, 200.0, 14)
    total.ravel()[places[:10]] *= 4
    total.ravel()[places[10:]] = 0
    field = flat_field(total, sigma_px=32)
    background = total / np.where(field.good, field.response, 1)
    ratio = total / np.where(field.good, background, 200.0)
    dead, hot = find_defects(ratio, np.ones_like(ratio), hot_sigma=6.0)
    assert set(np.flatnonzero(hot)) == set(places[:10])
    assert set(np.flatnonzero(dead)) == set(places[10:])


def test_replaced_pixels_fluctuate_like_their_neighbours() -> None:
    defects = np.array([[10, 10], [30, 41], [50, 3], [0, 63]])
    repair = plan_repair(defects, (64, 64))
    rng = np.random.default_rng(15)
    frames = rng.poisson(5.0, (2000, 64, 64)).astype(np.float32)
    for i, frame in enumerate(frames):
        frame[tuple(defects.T)] = 1e6
        repair.apply(frame, np.random.default_rng(i))
    variance = frames[:, defects[:, 0], defects[:, 1]].var(axis=0)
    assert np.all((variance > 0.8 * 5.0) & (variance < 1.25 * 5.0))  # the card's 0.8-1.25


def test_pixels_in_a_dead_block_are_drawn_from_the_frame() -> None:
    block = np.argwhere(np.ones((7, 7), bool)) + 20
    frame = np.random.default_rng(16).normal(100.0, 3.0, (64, 64)).astype(np.float32)
    frame[20:27, 20:27] = 0
    plan_repair(block, (64, 64)).apply(frame, np.random.default_rng(17))
    assert frame[20:27, 20:27].mean() == pytest.approx(100.0, abs=5 * 3.0 / 7)
    assert frame[20:27, 20:27].min() > 80


def test_a_defect_outside_the_frame_is_refused() -> None:
    with pytest.raises(InputError, match="x 70, y 3 lies outside the frame of 64 x 64"):
        plan_repair(np.array([[3, 70]]), (64, 64))


def test_the_rank_method_equals_its_definition_with_ties() -> None:
    frame = np.random.default_rng(18).poisson(2.0, (40, 30))
    columns = np.sort(frame, axis=0)
    expected = np.empty(frame.shape)
    for y in range(40):
        for x in range(30):
            rank = np.sum(columns[:, x] <= frame[y, x]) - 1
            expected[y, x] = np.mean([columns[rank, c] for c in range(30)])
    np.testing.assert_allclose(equalise_columns(frame), expected, rtol=1e-12)


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


def run(folder: Path, inputs: dict, **params: object) -> tuple[dict, np.ndarray]:
    names = {"gain": "gain.mrc", "estimated": "e.mrc", "residual": "r.mrc", "defects": "d.tsv", "summary": "g.json"}
    outputs = {key: folder / value for key, value in names.items()}
    context = Context(step="estimate_gain", work_dir=folder / "work", threads=2, log=logging.getLogger("test"))
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


def test_without_a_gain_a_poor_estimate_is_not_used(tmp_path: Path) -> None:
    summary, gain = run(tmp_path, make_run(tmp_path, camera((192, 160), 0.02, 22), movies=4))
    assert summary["source"] == "none"
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
    assert "corrected already" in summary["reason"]
    assert gain[gain > 0].std() == 0


def test_a_gain_of_another_camera_stops_the_run_with_its_scores(tmp_path: Path) -> None:
    inputs = make_run(tmp_path, camera((192, 160), 0.05, 25), movies=4)
    write_image(tmp_path / "given.mrc", camera((192, 160), 0.05, 26).astype(np.float32), 1.0)
    with pytest.raises(InputError, match=r"ambiguous: best score \d"):
        run(tmp_path, inputs | {"gain": tmp_path / "given.mrc"})
    summary, _ = run(tmp_path, inputs | {"gain": tmp_path / "given.mrc"}, orientation="rot180", sense="multiply")
    assert "set by the user" in summary["reason"]


def test_a_shifted_gain_stops_the_run_with_the_shift(tmp_path: Path) -> None:
    response = camera((192, 160), 0.05, 27)
    inputs = make_run(tmp_path, response, movies=4)
    write_image(tmp_path / "given.mrc", np.roll(1 / response, (2, -3), (0, 1)).astype(np.float32), 1.0)
    with pytest.raises(InputError, match="shifted by 3, -2 pixels"):
        run(tmp_path, inputs | {"gain": tmp_path / "given.mrc"})


def test_the_order_of_movies_does_not_matter(tmp_path: Path) -> None:
    response = camera((96, 96), 0.1, 28)
    inputs = make_run(tmp_path, response, movies=3)
    first = run(tmp_path, inputs)[0]
    from cryopipe.io.star import read_table

    table = read_table(tmp_path / "movies.star", "movies")
    write_table(tmp_path / "movies.star", table.with_rows(table.rows.iloc[::-1]))
    assert run(tmp_path, inputs)[0] == first
