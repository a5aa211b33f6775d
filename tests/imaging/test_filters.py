"""Fourier filters judged by what they do to waves and noise of known spectrum."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.errors import InputError
from cryopipe.imaging import filters
from cryopipe.imaging.frequencies import shell_mean
from cryopipe.imaging.guinier import fit_guinier

BOX, PIXEL = 64, 1.5  # 96 Å: shell s is 96 / s Å


def _wave(periods, ndim=3):
    x = np.arange(BOX) - BOX // 2
    return np.broadcast_to(np.cos(2 * np.pi * periods * x / BOX), (BOX,) * ndim).astype(np.float32)


def _gain(filtered, wave):
    """Return the gain, summed in float64: a float32 sum of 64³ products is right to 1e-5 or 1e-6, as the machine adds."""
    filtered, wave = np.asarray(filtered, np.float64), np.asarray(wave, np.float64)
    return float(np.vdot(filtered, wave) / np.vdot(wave, wave))


def _shell_amplitude(volume):
    """Return √⟨|F|²⟩ per shell."""
    return np.sqrt(shell_mean(np.abs(np.fft.rfftn(volume, norm="ortho")) ** 2, volume.shape))


#: The gain and its frequency are float32: each is right to half of 1.2e-7 of itself, and a slope of the cosine edge of
#: π periods / 8 multiplies the latter by 6 at most. The transforms' own rounding averages out over 64³ products.
ROUNDING = 8 * float(np.finfo(np.float32).eps)


@pytest.mark.parametrize(("periods", "expected"), [(0, 1.0), (9, 1.0), (12, 0.5), (15, 0.0), (30, 0.0)])
def test_low_pass_has_gain_one_half_at_its_resolution_and_a_cosine_edge(periods, expected):
    wave = _wave(periods)
    assert _gain(filters.low_pass(wave, PIXEL, 8.0, edge_shells=4), wave) == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize(("periods", "expected"), [(6, 2.0**-0.25), (12, 0.5), (24, 2.0**-4)])
def test_gaussian_low_pass_falls_as_a_gaussian_with_one_half_at_its_resolution(periods, expected):
    wave = _wave(periods)
    assert _gain(filters.low_pass(wave, PIXEL, 8.0, shape="gaussian"), wave) == pytest.approx(expected, abs=ROUNDING)


def test_a_stack_is_filtered_image_by_image(rng):
    stack = rng.standard_normal((3, 32, 40)).astype(np.float32)
    whole = filters.low_pass(stack, 1.0, 6.0, ndim=2)
    for image, result in zip(stack, whole, strict=True):
        np.testing.assert_allclose(result, filters.low_pass(image, 1.0, 6.0), atol=1e-6)


def test_filters_leave_their_input_alone(rng):
    image = rng.standard_normal((16, 16)).astype(np.float32)
    before = image.copy()
    filters.low_pass(image, 1.0, 4.0)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("periods", [5, 20])
def test_b_factor_multiplies_by_its_exponential(periods):
    wave = _wave(periods)
    k = periods / (BOX * PIXEL)
    assert _gain(filters.apply_b_factor(wave, PIXEL, 100.0), wave) == pytest.approx(np.exp(-25.0 * k**2), rel=ROUNDING)
    assert _gain(filters.apply_b_factor(wave, PIXEL, -100.0), wave) == pytest.approx(np.exp(25.0 * k**2), rel=ROUNDING)


def test_fsc_weight_is_the_correlation_with_the_truth():
    np.testing.assert_allclose(filters.fsc_weight([1.0, 0.143, 0.0, -0.2]), [1.0, 0.5002, 0.0, 0.0], atol=1e-4)


def test_a_shell_curve_is_applied_shell_by_shell():
    curve = np.linspace(1.0, 0.2, BOX // 2 + 1)
    for periods in (3, 17):
        wave = _wave(periods)
        assert _gain(filters.apply_shell_curve(wave, curve), wave) == pytest.approx(curve[periods], abs=ROUNDING)


def test_impossible_resolutions_and_shapes_are_refused():
    with pytest.raises(InputError, match="positive"):
        filters.low_pass(np.zeros((8, 8), np.float32), 1.0, 0.0)
    with pytest.raises(InputError, match="boxcar"):
        filters.low_pass(np.zeros((8, 8), np.float32), 1.0, 4.0, shape="boxcar")


@pytest.mark.parametrize("b_factor", [60.0, 120.0])
def test_guinier_fit_finds_the_b_factor_that_was_applied(b_factor, rng):
    white = rng.standard_normal((96,) * 3).astype(np.float32)
    fit = fit_guinier(filters.apply_b_factor(white, 1.2, b_factor), 1.2, 3.0)
    # Shells of over 3000 voxels: their mean amplitudes scatter by 1 %, the slope by less than 2 Å2.
    assert fit.b_factor_A2 == pytest.approx(b_factor, abs=2.0)
    assert fit.correlation < -0.98
    flat = filters.apply_b_factor(filters.apply_b_factor(white, 1.2, b_factor), 1.2, -fit.b_factor_A2)
    amplitude = _shell_amplitude(flat)[12:38]
    assert amplitude.std() / amplitude.mean() < 0.03


def test_guinier_fit_weighted_by_the_fsc_ignores_the_noise_in_the_amplitudes(rng):
    signal = filters.apply_b_factor(rng.standard_normal((96,) * 3).astype(np.float32), 1.2, 150.0)
    noisy = signal + 0.03 * rng.standard_normal(signal.shape).astype(np.float32)
    k = np.arange(49) / (96 * 1.2)
    power = np.exp(-75.0 * k**2)
    half_map_noise = 2 * 0.03**2  # each half has twice the noise power of their mean
    curve = power / (power + half_map_noise)
    weighted = fit_guinier(noisy, 1.2, 3.0, fsc=curve)
    assert weighted.b_factor_A2 == pytest.approx(150.0, abs=5.0)
    assert abs(fit_guinier(noisy, 1.2, 3.0).b_factor_A2 - 150.0) > 10.0


def test_no_b_factor_is_fitted_to_a_map_worse_than_ten_angstrom():
    with pytest.raises(InputError, match="finer than 10 Å"):
        fit_guinier(np.ones((32,) * 3, np.float32), 2.0, 11.0)
