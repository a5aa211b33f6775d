from __future__ import annotations

import logging

import imagecodecs
import numpy as np
import pytest

from cryopipe.errors import InputError
from cryopipe.io.movie_files.eer import EER_LAYOUTS, render_events
from cryopipe.io.movies import open_movie
from tests.io.eer_encoder import Event, encode_readout, write_eer

SHAPE = (48, 80)
#: Compression, bits of run, x, y, and whether sub-pixel bits follow every run.
FLAVOURS = [(65000, (8, 2, 2), True), (65001, (7, 2, 2), False), (65002, (7, 1, 1), False)]


def events(n: int, bits: tuple[int, int], seed: int = 0) -> list[Event]:
    """Return electrons at distinct camera pixels, with the first and the last pixel and a long gap among them."""
    rng = np.random.default_rng(seed)
    ny, nx = SHAPE
    places = set(map(int, rng.choice(np.r_[0 : nx * 10, nx * 30 : nx * ny], n, replace=False))) | {0, nx * ny - 1}
    subs = rng.integers(0, [1 << bits[0], 1 << bits[1]], (len(places), 2))
    return [(p % nx, p // nx, int(x), int(y)) for p, (x, y) in zip(sorted(places), subs, strict=True)]


def rendered(electrons: list[Event], upsampling: int, bits: tuple[int, int]) -> np.ndarray:
    """Return the picture that the electrons make, the plain way."""
    image = np.zeros((SHAPE[0] * upsampling, SHAPE[1] * upsampling), dtype=int)
    for x, y, sub_x, sub_y in electrons:
        fine_x, fine_y = x + (sub_x + 0.5) / (1 << bits[0]), y + (sub_y + 0.5) / (1 << bits[1])
        image[int(fine_y * upsampling), int(fine_x * upsampling)] += 1
    return image


@pytest.mark.parametrize(
    ("compression", "layout", "fixed", "upsampling"),
    [(*flavour, u) for flavour in FLAVOURS for u in (1, 2, 4) if u <= 1 << flavour[1][1]],
)
def test_every_electron_is_counted_where_it_was_encoded(tmp_path, compression, layout, fixed, upsampling):
    bits = layout[1:]
    movie_events = [events(150, bits, seed) for seed in range(7)]
    readouts = [encode_readout(e, SHAPE, layout, fixed=fixed) for e in movie_events]
    write_eer(tmp_path / "m.eer", readouts, SHAPE, compression, layout)
    with open_movie(tmp_path / "m.eer", eer_grouping=3, eer_upsampling=upsampling) as movie:
        # two groups of three; the incomplete third is left out
        assert movie.shape == (2, SHAPE[0] * upsampling, SHAPE[1] * upsampling)
        for i, frame in enumerate(movie):
            expected = sum(rendered(e, upsampling, bits) for e in movie_events[3 * i : 3 * i + 3])
            assert np.array_equal(frame, expected)


@pytest.mark.parametrize(("compression", "layout", "fixed"), FLAVOURS[1:])
def test_imagecodecs_finds_the_same_camera_pixels(tmp_path, compression, layout, fixed):
    data = encode_readout(events(200, layout[1:]), SHAPE, layout, fixed=fixed)
    write_eer(tmp_path / "m.eer", [data], SHAPE, compression, layout)
    with open_movie(tmp_path / "m.eer", eer_grouping=1) as movie:
        assert np.array_equal(movie.read_frame(0), imagecodecs.eer_decode(data, SHAPE, *layout))


def test_imagecodecs_reads_a_cut_readout_in_part_and_8_bit_runs_otherwise():
    """The two reasons for a decoder of our own; the third is its time (`docs/benchmarks.md`)."""
    data = encode_readout(events(100, (2, 2)), SHAPE, (7, 2, 2), fixed=False)
    frame = np.zeros(SHAPE, np.uint8)
    assert 0 < imagecodecs.eer_decode(data[:60], SHAPE, 7, 2, 2).sum() < 100
    assert not render_events(data[:60], frame, SHAPE, EER_LAYOUTS[65001], 1)
    assert not frame.any()
    electrons, shape = [(3, 0, 1, 1), (900, 2, 0, 3), (10, 7, 2, 2)], (48, 1080)
    data = encode_readout(electrons, shape, (8, 2, 2), fixed=True)
    expected = np.zeros(shape, np.uint8)
    for x, y, _, _ in electrons:
        expected[y, x] = 1
    frame = np.zeros(shape, np.uint8)
    assert render_events(data, frame, shape, EER_LAYOUTS[65000], 1)
    assert np.array_equal(frame, expected)
    try:
        theirs = imagecodecs.eer_decode(data, shape, 8, 2, 2)
    except RuntimeError:
        return
    assert not np.array_equal(theirs, expected)


def test_an_empty_readout_is_a_frame_without_electrons(tmp_path):
    data = encode_readout([], SHAPE, (7, 2, 2), fixed=False)
    write_eer(tmp_path / "m.eer", [data], SHAPE, 65001, (7, 2, 2))
    with open_movie(tmp_path / "m.eer", eer_grouping=1) as movie:
        assert not movie.read_frame(0).any()


@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: b"\xff" + d[1:], lambda d: b"\x00" * len(d)])
def test_a_damaged_readout_is_left_out_and_the_others_are_kept(tmp_path, caplog, damage):
    layout = (7, 2, 2)
    movie_events = [events(150, (2, 2), seed) for seed in range(4)]
    readouts = [encode_readout(e, SHAPE, layout, fixed=False) for e in movie_events]
    readouts[1] = damage(readouts[1])
    write_eer(tmp_path / "m.eer", readouts, SHAPE, 65001, layout)
    with open_movie(tmp_path / "m.eer", eer_grouping=2) as movie, caplog.at_level(logging.WARNING):
        first, second = movie
    assert np.array_equal(first, rendered(movie_events[0], 1, (2, 2)))
    assert np.array_equal(second, sum(rendered(e, 1, (2, 2)) for e in movie_events[2:]))
    assert "1 of 2 readouts of frame 1 are damaged" in caplog.text


def test_a_frame_without_any_good_readout_is_an_error(tmp_path):
    write_eer(tmp_path / "m.eer", [b"\0\0"], SHAPE, 65001, (7, 2, 2))
    with (
        open_movie(tmp_path / "m.eer", eer_grouping=1) as movie,
        pytest.raises(InputError, match="all 1 readouts of frame 1"),
    ):
        movie.read_frame(0)


def test_groups_and_upsampling_that_cannot_be_are_refused(tmp_path):
    data = encode_readout([], SHAPE, (7, 1, 1), fixed=False)
    write_eer(tmp_path / "m.eer", [data], SHAPE, 65002, (7, 1, 1))
    with pytest.raises(InputError, match="1 readouts are too few for a frame of 40"):
        open_movie(tmp_path / "m.eer")
    with pytest.raises(InputError, match="do not allow upsampling by 4"):
        open_movie(tmp_path / "m.eer", eer_grouping=1, eer_upsampling=4)
    with pytest.raises(InputError, match="1, 2 or 4"):
        open_movie(tmp_path / "m.eer", eer_grouping=1, eer_upsampling=3)


def test_a_cut_off_eer_movie_is_refused(tmp_path):
    data = encode_readout(events(100, (2, 2)), SHAPE, (7, 2, 2), fixed=False)
    write_eer(tmp_path / "m.eer", [data] * 4, SHAPE, 65001, (7, 2, 2))
    whole = (tmp_path / "m.eer").read_bytes()
    for cut in (1, 50, len(whole) // 2):
        (tmp_path / "m.eer").write_bytes(whole[:-cut])
        with pytest.raises(InputError, match=r"m\.eer"):
            open_movie(tmp_path / "m.eer", eer_grouping=2)


def test_more_readouts_than_a_byte_counts_do_not_overflow(tmp_path):
    data = encode_readout([(3, 1, 0, 0)], SHAPE, (7, 2, 2), fixed=False)
    write_eer(tmp_path / "m.eer", [data] * 300, SHAPE, 65001, (7, 2, 2))
    with open_movie(tmp_path / "m.eer", eer_grouping=300) as movie:
        frame = movie.read_frame(0)
    assert frame[1, 3] == 300
    assert frame.sum() == 300
