"""Noise spectra, robust statistics, running moments and the choice of the array library."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.errors import InputError
from cryopipe.imaging import backend, noise, statistics
from cryopipe.imaging.filters import apply_transfer
from cryopipe.imaging.masks import soft_circle


def test_white_noise_of_sd_one_has_sigma2_one_half(rng):
    images = rng.standard_normal((300, 64, 64)).astype(np.float32)
    spectrum = noise.noise_spectrum(images)
    assert spectrum.shape == (33,)
    # Ring r of 300 images holds 300 · πr independent values of |F|²: relative sd 1/√ of that; five of them.
    relative = 5.0 / np.sqrt(300 * np.pi * np.maximum(np.arange(33), 1))
    assert np.all(np.abs(spectrum / 0.5 - 1.0) < relative)


def test_the_spectrum_of_coloured_noise_is_that_of_its_filter(rng):
    images = rng.standard_normal((200, 64, 64)).astype(np.float32)
    coloured = apply_transfer(images, 1.0, lambda k: 1.0 / (1.0 + 6.0 * k), ndim=2)
    rings = np.arange(2, 32)
    expected = 0.5 / (1.0 + 6.0 * rings / 64.0) ** 2
    np.testing.assert_allclose(noise.noise_spectrum(coloured)[2:32], expected, rtol=0.1)


def test_background_noise_is_measured_beside_a_bright_particle(rng):
    images = rng.standard_normal((300, 96, 96)).astype(np.float32) + 5.0 + 20.0 * soft_circle(96, 20.0)
    spectrum = noise.background_noise_spectrum(images, 28.0)
    # The corners' mask blurs over three rings; beyond them white noise stays white within 5 %.
    np.testing.assert_allclose(spectrum[4:], 0.5, rtol=0.05)


def test_a_single_image_and_a_stack_in_chunks_give_the_same_as_the_stack(rng):
    images = rng.standard_normal((7, 32, 32)).astype(np.float32)
    whole = noise.noise_spectrum(images)
    np.testing.assert_allclose(noise.noise_spectrum(images, chunk=2), whole, rtol=1e-6)
    np.testing.assert_allclose(np.mean([noise.noise_spectrum(i) for i in images], axis=0), whole, rtol=1e-6)


def test_a_box_without_background_is_refused():
    with pytest.raises(InputError, match="larger box"):
        noise.background_noise_spectrum(np.zeros((1, 32, 32), np.float32), 22.0)


def test_an_empty_stack_is_refused():
    with pytest.raises(InputError, match="empty"):
        noise.noise_spectrum(np.zeros((0, 32, 32), np.float32))


def test_robust_location_and_scale_withstand_a_third_of_outliers(rng):
    values = rng.normal(10.0, 2.0, 20000)
    values[:4000] = 1e6
    location, scale = statistics.robust_location_scale(values)
    # 20 % of one-sided outliers move the median by 0.32 sd and widen the MAD by 1.3: bounded, unlike mean and sd.
    assert location == pytest.approx(10.0, abs=0.8)
    assert scale == pytest.approx(2.0, rel=0.4)


def test_robust_scale_of_normal_data_is_its_sd(rng):
    location, scale = statistics.robust_location_scale(rng.normal(-3.0, 0.5, 40000))
    assert location == pytest.approx(-3.0, abs=0.016)
    assert scale == pytest.approx(0.5, rel=0.03)


def test_robust_statistics_skip_what_is_not_finite_and_refuse_nothing_at_all():
    assert statistics.robust_location_scale([1.0, np.nan, 3.0, np.inf, 2.0])[0] == 2.0
    with pytest.raises(InputError, match="no finite value"):
        statistics.robust_location_scale([np.nan])


def test_robust_z_of_constant_values_is_zero():
    np.testing.assert_array_equal(statistics.robust_z([4.0, 4.0, 4.0]), 0.0)


def test_clipped_mean_and_sd_leave_outliers_out(rng):
    values = np.concatenate([rng.normal(5.0, 1.0, 20000), np.full(400, 100.0)])
    location, scale = statistics.sigma_clipped(values, clip=4.0)
    assert location == pytest.approx(5.0, abs=0.04)
    assert scale == pytest.approx(1.0, abs=0.03)


def test_an_image_is_normalised_over_its_background(rng):
    image = rng.normal(50.0, 4.0, (64, 64)) + 100.0 * soft_circle(64, 10.0)
    background = soft_circle(64, 20.0, edge_px=0) == 0
    result = statistics.normalise(image, background)
    assert result.dtype == np.float32
    assert result[background].mean() == pytest.approx(0.0, abs=1e-5)
    assert result[background].std() == pytest.approx(1.0, abs=1e-5)


def test_a_constant_background_cannot_be_normalised():
    with pytest.raises(InputError, match="constant"):
        statistics.normalise(np.ones((8, 8)))


def test_merged_moments_are_those_of_all_values_even_far_from_zero(rng):
    values = rng.normal(1e6, 1.0, 5000)
    moments = statistics.Moments()
    for block in np.split(values, [3, 10, 1000]):
        moments = moments.add(block)
    assert moments.count == 5000
    assert moments.mean == pytest.approx(values.mean(), rel=1e-14)
    assert moments.variance == pytest.approx(values.var(), rel=1e-9)


def test_moments_along_an_axis_are_kept_per_pixel(rng):
    frames = rng.normal(3.0, 2.0, (11, 6, 5))
    moments = statistics.Moments().add(frames[:4], axis=0).merge(statistics.Moments().add(frames[4:], axis=0))
    np.testing.assert_allclose(moments.mean, frames.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.sd, frames.std(axis=0), rtol=1e-12)


def test_moments_of_nothing_are_zero():
    assert statistics.Moments().add([]).sd == 0.0


def test_numpy_arrays_scalars_and_none_belong_to_numpy():
    assert backend.array_module(np.zeros(2), 3.0, None) is np
    assert backend.array_module() is np


def test_mixing_arrays_of_host_and_device_is_a_type_error(monkeypatch):
    class DeviceArray:
        """Stands where CuPy's ndarray would: only its type is looked at."""

    module = type("cupy", (), {"ndarray": DeviceArray})
    monkeypatch.setitem(__import__("sys").modules, "cupy", module)
    assert backend.array_module(DeviceArray()) is module
    with pytest.raises(TypeError, match="mixed"):
        backend.array_module(np.zeros(2), DeviceArray())
