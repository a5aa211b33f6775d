"""Averaged periodogram, its polar cells and the enhanced spectrum."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.ctf.defocus import Defocus, Microscope, from_uv, phase
from cryopipe.ctf.xmipp.enhanced_spectrum import enhance_psd
from cryopipe.ctf.xmipp.periodogram import averaged_periodogram, downsampled_micrograph
from cryopipe.ctf.xmipp.polar_average import polar_cells, ring_cells, ring_contrast
from cryopipe.imaging.fourier import full_plane
from cryopipe.imaging.optics import CtfParameters, ctf

SCOPE = Microscope(300.0, 2.7, 0.1)


def centred_plane(half: np.ndarray) -> np.ndarray:
    return np.fft.fftshift(full_plane(half))


def white(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((side, side)).astype(np.float32)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.7])
def test_white_noise_has_power_1_and_the_variance_of_the_independent_windows(overlap: float) -> None:
    spectrum = averaged_periodogram(white(1280), 1.0, window=256, overlap=overlap)
    inner = spectrum.power[10:120, 10:120]
    assert inner.mean() == pytest.approx(1.0, abs=0.02)
    assert inner.var() == pytest.approx(1.0 / spectrum.independent, rel=0.08)  # 12100 pixels: 2 % and their correlation
    # the power of one window has an exponential distribution
    assert (spectrum.deviation[10:120, 10:120] / inner).mean() == pytest.approx(1.0, abs=0.1)


def test_a_plane_leaves_no_trace() -> None:
    image = white(768)
    y, x = np.mgrid[0:768, 0:768].astype(np.float32)
    plain = averaged_periodogram(image, 1.0, window=256, overlap=0.5)
    tilted = averaged_periodogram(image + 0.05 * x - 0.03 * y, 1.0, window=256, overlap=0.5)
    np.testing.assert_allclose(tilted.power, plain.power, rtol=0.02, atol=0.01)  # float32 and the windows' scale


def test_the_power_of_a_wave_stands_at_its_frequency_and_sign() -> None:
    y, x = np.mgrid[0:768, 0:768]
    wave = np.cos(2 * np.pi * (20 * x - 31 * y) / 256) + 0.01 * white(768)
    spectrum = averaged_periodogram(wave.astype(np.float32), 1.0, window=256, overlap=0.5)
    assert np.unravel_index(spectrum.power.argmax(), spectrum.power.shape) == (256 - 31, 20)
    whole = centred_plane(spectrum.power)
    assert whole[128 - 31, 128 + 20] == whole[128 + 31, 128 - 20] == spectrum.power.max()


def test_resampling_keeps_the_field_of_view() -> None:
    image, pixel = downsampled_micrograph(white(700), 0.9, 1.75)
    assert image.shape[0] * pixel == pytest.approx(700 * 0.9, rel=1e-12)
    assert pixel == pytest.approx(1.75, rel=3e-3)
    same, kept = downsampled_micrograph(image, 2.0, 1.75)
    assert kept == 2.0
    assert same is image


def test_fringes_are_weakened_by_the_window_as_far_as_the_contrast_says() -> None:
    truth, side, pixel = Defocus(30000.0), 2048, 1.75
    ky, kx = np.fft.fftfreq(side, pixel)[:, None], np.fft.rfftfreq(side, pixel)[None, :]
    transfer = ctf(kx + 0 * ky, ky + 0 * kx, CtfParameters(truth.u_A, truth.v_A, 0.0, 300.0, 2.7, 0.1))
    image = np.fft.irfft2(np.fft.rfft2(white(side)) * transfer, s=(side, side)).astype(np.float32)
    spectrum = averaged_periodogram(image, pixel, window=256, overlap=0.5)
    cells = polar_cells(spectrum).within(0.08, 0.13)
    rings = ring_cells(cells)
    contrast = ring_contrast(cells, rings, truth, SCOPE)
    fringe = np.cos(2.0 * phase(rings.u**2, truth.mean_A, SCOPE))
    # power = c (1 - contrast · cos 2χ) / 2
    slope, level = np.polyfit(contrast * fringe, rings.power, 1)
    assert 0.3 < contrast.mean() < 0.75
    assert -slope / level == pytest.approx(1.0, abs=0.07)  # some 30 rings of 1 % noise each, fringes of 2.5 rings


def test_the_mean_over_a_ring_of_an_astigmatic_fringe_is_a_bessel_function() -> None:
    spectrum = averaged_periodogram(white(768), 1.75, window=512, overlap=0.5)
    cells, truth = polar_cells(spectrum), from_uv(15400.0, 14600.0, 20.0)
    rings = ring_cells(cells)
    local = truth.mean_A + truth.a_A * cells.cos2 + truth.b_A * cells.sin2
    fringe = cells.contrast(truth, SCOPE) * np.cos(2.0 * phase(cells.u**2, local, SCOPE))
    weights = np.bincount(cells.ring, weights=cells.samples)[rings.ring]
    mean = np.bincount(cells.ring, weights=cells.samples * fringe)[rings.ring] / weights
    predicted = ring_contrast(cells, rings, truth, SCOPE) * np.cos(2.0 * phase(rings.u**2, truth.mean_A, SCOPE))
    inside = (rings.u > 0.05) & (rings.u < 0.25)
    assert np.sqrt(np.mean((mean - predicted)[inside] ** 2)) < 0.05  # the cross at the axes is left out of the mean


def test_the_enhanced_spectrum_shows_rings_on_a_steep_background() -> None:
    n, pixel = 256, 1.75
    ky, kx = np.fft.fftfreq(n, pixel)[:, None], np.arange(n // 2 + 1)[None, :] / (n * pixel)
    k2 = kx**2 + ky**2
    rings = np.sin(phase(k2, 15000.0, SCOPE)) ** 2
    steep = 1.0 + 40.0 * np.exp(-22.0 * k2**0.25)
    noise = np.random.default_rng(0).gamma(50.0, 1.0 / 50.0, k2.shape)
    enhanced = enhance_psd((steep + 0.5 * rings) * noise, pixel)
    shown = centred_plane((k2 > 0.06**2) & (k2 < 0.15**2))
    expected = centred_plane(rings)
    assert np.corrcoef(enhanced.values[shown], expected[shown])[0, 1] > 0.85
    kx1, ky1 = np.array([10, -20]) / (n * pixel), np.array([-7, 30]) / (n * pixel)
    assert enhanced.at(kx1, ky1) == pytest.approx([enhanced.values[128 - 7, 138], enhanced.values[158, 108]])
