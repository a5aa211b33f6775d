"""Drawings and pictures of the report show what the files say, small."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cryopipe.movies.motion.star import read_motion
from cryopipe.report.drawing.pictures import blocks, file_source, grey_source
from cryopipe.report.drawing.tracks import global_track, patch_tracks, read_local
from tests.report.fabricated import SHAPE, SHIFTS, write_run


def decoded(source: str) -> Image.Image:
    head, data = source.split(",", 1)
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def vertices(path: str) -> np.ndarray:
    """Return the points of a path of the form M x y l dx dy ..."""
    numbers = np.array([float(v) for v in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", path)]).reshape(-1, 2)
    return numbers.cumsum(axis=0)


def test_the_global_track_has_the_shape_of_the_shifts_with_y_upwards(tmp_path: Path) -> None:
    write_run(tmp_path, 1, drawn=1)
    motion = read_motion(tmp_path / "movies/align_movies/motion/mov_00000.star")
    drawing = str(global_track(motion))
    drawn = vertices(re.search(r'<path d="(M[^"]*l[^"]*)"', drawing)[1])  # type: ignore[index]
    expected = SHIFTS * (1, -1)
    scale = np.ptp(drawn[:, 0]) / np.ptp(expected[:, 0])
    # places are rounded to 0.1
    np.testing.assert_allclose(drawn - drawn[0], (expected - expected[0]) * scale, atol=0.2)
    assert "extent 6.0 Å" in drawing  # 3 px along x, and along y, at 2 Å


def test_patch_tracks_add_the_local_field_to_the_global_motion(tmp_path: Path) -> None:
    write_run(tmp_path, 1, drawn=1)
    path = tmp_path / "movies/align_movies/motion/mov_00000.star"
    motion, local = read_motion(path), read_local(path)
    assert local is not None
    assert local.shape == SHAPE
    paths = re.findall(r'<path d="(M[^"]*l[^"]*)" fill="none" stroke="(#\w+)"', str(patch_tracks(motion, local)))
    tracks = [vertices(d) for d, colour in paths if colour == "#27507f"]
    whole = vertices(next(d for d, colour in paths if colour == "#b9c1cc"))
    assert len(tracks) == 16
    enlarged = np.ptp(whole[:, 0]) / (np.ptp(SHIFTS[:, 0]) * 2.0)  # drawing units per Å
    for column, x in enumerate((np.arange(4) + 0.5) * SHAPE[2] / 4):  # tracks run row by row
        travel = (tracks[column][-1] - tracks[column][0])[0] / enlarged
        field = local.at(SHAPE[0] - 1, np.array([12.0]), np.array([x])) - local.at(0, np.array([12.0]), np.array([x]))
        # 0.1 drawing units at each end
        assert travel == pytest.approx(2.0 * (SHIFTS[-1, 0] - SHIFTS[0, 0] + field[0, 0, 0]), abs=0.2 / enlarged)


def test_a_motion_file_without_a_local_field_has_none(tmp_path: Path) -> None:
    write_run(tmp_path, 1, drawn=1)
    path = tmp_path / "movies/align_movies/motion/mov_00000.star"
    path.write_text(path.read_text().split("data_local_spline")[0])
    assert read_local(path) is None


def test_a_picture_file_comes_back_at_the_width_asked_for_and_much_smaller(tmp_path: Path) -> None:
    y, x = np.indices((512, 512))
    rings = (127 + 120 * np.sin(np.hypot(x - 256, y - 256) / 4)).astype(np.uint8)
    Image.fromarray(rings).save(tmp_path / "a.png")
    picture = decoded(file_source(tmp_path / "a.png", width=256))
    assert picture.size == (256, 256)
    expected = rings.reshape(256, 2, 256, 2).mean(axis=(1, 3))
    found = np.asarray(picture.convert("L"), dtype=float)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99
    colours = np.stack([rings, rings.T, 255 - rings], axis=-1)
    Image.fromarray(colours).save(tmp_path / "b.png")
    shown = np.asarray(decoded(file_source(tmp_path / "b.png", width=512)).convert("RGB"), dtype=float)
    assert np.corrcoef(shown[..., 0].ravel(), rings.ravel())[0, 1] > 0.95
    assert np.corrcoef(shown[..., 2].ravel(), rings.ravel())[0, 1] < -0.95


def test_grey_values_run_from_black_to_white_between_the_limits() -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32) * np.ones((64, 1), dtype=np.float32)
    found = np.asarray(decoded(grey_source(ramp, width=64, limits=(0.25, 0.75))).convert("L"), dtype=float)[32]
    assert found[:14].max() < 12
    assert found[50:].min() > 243
    assert abs(found[32] - 128) < 16


def test_blocks_keep_the_mean() -> None:
    image = np.arange(40 * 60, dtype=np.float32).reshape(40, 60)
    small = blocks(image, 20)
    assert small.shape == (13, 20)
    np.testing.assert_allclose(small[0, 0], image[:3, :3].mean())
