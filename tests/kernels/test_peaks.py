"""Peaks of response maps, against a greedy loop and against what a picker asks of them."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.kernels import peaks
from tests.kernels.reference import peaks as reference


def bump(shape, centres, sigma=3.0):
    y, x = np.mgrid[: shape[0], : shape[1]]
    out = np.zeros(shape)
    for v, u, height in centres:
        out += height * np.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * sigma**2))
    return out.astype(np.float32)


def same(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("radius", [0.0, 1.0, 3.5, 12.0])
def test_peaks_of_noise_are_those_of_the_greedy_loop(fast, rng, radius):
    response = rng.standard_normal((45, 61)).astype(np.float32)
    options = {"threshold": 0.3, "upper_threshold": 2.5, "border": 2}
    same(fast.call("peaks.find_peaks", response, radius, **options), reference.find_peaks(response, radius, **options))


def test_a_radius_for_each_pixel_is_the_radius_of_the_peak_that_suppresses(fast, rng):
    response = rng.standard_normal((40, 40)).astype(np.float32)
    radius = rng.uniform(0, 9, (40, 40)).astype(np.float32)
    same(fast.call("peaks.find_peaks", response, radius), reference.find_peaks(response, radius))


def test_ties_are_broken_by_the_raster_order(fast):
    response = np.round(np.random.default_rng(3).random((30, 30)) * 4).astype(np.float32)  # full of plateaus
    same(fast.call("peaks.find_peaks", response, 4.0), reference.find_peaks(response, 4.0))


def test_two_bumps_apart_are_two_peaks_and_close_ones_are_one(on):
    apart = bump((64, 64), [(20, 20, 1.0), (20, 44, 0.9)])
    y, x, score = on.call("peaks.find_peaks", apart, 20.0, threshold=0.1)
    np.testing.assert_array_equal(y, [20, 20])
    np.testing.assert_array_equal(x, [20, 44])
    assert score[0] > score[1]
    close = bump((64, 64), [(20, 20, 1.0), (20, 32, 0.9)])
    y, x, _ = on.call("peaks.find_peaks", close, 20.0, threshold=0.1)
    assert (y.tolist(), x.tolist()) == ([20], [20])


def test_a_peak_above_the_upper_threshold_hides_its_neighbours_and_is_not_returned(on):
    response = bump((64, 64), [(20, 20, 9.0), (20, 34, 1.0), (50, 50, 1.0)])
    y, x, _ = on.call("peaks.find_peaks", response, 20.0, threshold=0.1, upper_threshold=5.0)
    assert (y.tolist(), x.tolist()) == ([50], [50])


def test_an_impulse_of_a_large_oblong_map_is_found_where_it_is(fast):
    response = np.zeros((383, 371), np.float32)
    response[300, 100] = 1
    y, x, _ = fast.call("peaks.find_peaks", response, 10.0, threshold=0.5)
    assert (y.tolist(), x.tolist()) == ([300], [100])


def test_nothing_above_the_threshold_gives_empty_lists(on):
    for response in (np.zeros((8, 9), np.float32), np.zeros((2, 2), np.float32)):
        y, x, score = on.call("peaks.find_peaks", response, 3.0, threshold=1.0, border=1)
        assert y.size == x.size == score.size == 0


def test_bad_inputs_are_refused():
    response = np.zeros((8, 9), np.float32)
    with pytest.raises(TypeError, match="response must be float32"):
        peaks.find_peaks(response.astype(float), 1.0)
    with pytest.raises(ValueError, match="must be finite"):
        peaks.find_peaks(np.full((8, 9), np.nan, np.float32), 1.0)
    with pytest.raises(ValueError, match="radius must not be negative"):
        peaks.find_peaks(response, -1.0)
    with pytest.raises(ValueError, match="radius must have shape"):
        peaks.find_peaks(response, np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match="border must not be negative"):
        peaks.find_peaks(response, 1.0, border=-1)
