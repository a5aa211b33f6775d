"""Envelope, background, separable least squares and criteria against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, special

from cryopipe.ctf.defocus import Defocus, Microscope, from_uv
from cryopipe.ctf.xmipp.background import Hill
from cryopipe.ctf.xmipp.criteria import (
    astigmatic_validity_A,
    correlation_90,
    first_zero,
    first_zero_phase,
    histogram_normality,
    iceness,
    phase_resolution_A,
    radial_integral,
    ring_margins,
    runs_deviate,
    spectrum_stability,
)
from cryopipe.ctf.xmipp.enhanced_spectrum import EnhancedPsd
from cryopipe.ctf.xmipp.envelope import Envelope, envelope_b_factor_A2, envelope_resolution_A
from cryopipe.ctf.xmipp.fit import separable_heights
from cryopipe.ctf.xmipp.periodogram import Periodogram
from cryopipe.ctf.xmipp.ring_significance import fit_resolution_A
from cryopipe.imaging.optics import CtfParameters, ctf

SCOPE = Microscope(300.0, 2.7, 0.1)
AZIMUTHS = np.pi * np.arange(180) / 180.0


def flat(pixel: float = 1.4, box: int = 512, value: float = 1.0) -> Periodogram:
    power = np.full((box, box // 2 + 1), value)
    return Periodogram(power, power, np.zeros((9, 5)), 9.0, np.ones(box), pixel)


def test_each_factor_of_the_envelope_has_its_formula() -> None:
    u, wavelength, cs_A = np.linspace(0.01, 0.28, 20), SCOPE.wavelength_A, 2.7e7
    defocus = 15000.0
    k3 = (0.25 * np.pi * 2e7 * wavelength * (1.2 / 3e5 + 2e-6 * 3.0)) ** 2 / np.log(2.0)
    cases = {
        Envelope(energy_spread_eV=1.2, current_instability_ppm=3.0): np.exp(-k3 * u**4),
        Envelope(longitudinal_A=300.0): special.j0(np.pi * 300.0 * wavelength * u**2),
        Envelope(transversal_A=2.0): np.sin(2 * np.pi * u) / (2 * np.pi * u),
        Envelope(convergence_mrad=0.1): np.exp(-((np.pi * 1e-4 * (cs_A * wavelength**2 * u**3 - defocus * u)) ** 2)),
        Envelope(linear_A=-1.0, quadratic_A2=2.0): 1.0 - u + 2.0 * u**2,
    }
    for envelope, expected in cases.items():
        np.testing.assert_allclose(envelope.at(u, defocus, SCOPE), expected, rtol=1e-10)


def test_an_envelope_of_a_known_b_factor_ends_where_it_falls_to_a_tenth() -> None:
    flat_scope = Microscope(300.0, 0.0, 0.1)
    envelope = Envelope(convergence_mrad=1e3 * np.sqrt(300.0 / 4) / (np.pi * 15000.0))  # B = 300 Å²
    assert envelope_b_factor_A2(envelope, 15000.0, flat_scope, (0.03, 0.2)) == pytest.approx(300.0, rel=1e-6)
    end_A = envelope_resolution_A(envelope, Defocus(15000.0), flat_scope, 0.3)
    assert end_A == pytest.approx(1.0 / np.sqrt(4.0 * np.log(10.0) / 300.0), rel=1e-3)  # linear between 99 radii
    # the azimuth of the smallest defocus reaches farthest
    further_A = envelope_resolution_A(envelope, from_uv(16000.0, 14000.0, 30.0), flat_scope, 0.3)
    assert further_A == pytest.approx(end_A * 14000.0 / 15000.0, rel=2e-3)
    assert envelope_resolution_A(Envelope(), Defocus(15000.0), flat_scope, 0.3) == pytest.approx(1 / 0.3)


def test_the_first_zero_is_a_zero_of_the_ctf_towards_every_azimuth() -> None:
    for shift in (0.0, 60.0, 178.0):
        d = from_uv(12000.0, 11000.0, 30.0, shift)
        k = 1.0 / phase_resolution_A(d, SCOPE, first_zero_phase(d, SCOPE))
        optics = CtfParameters(12000.0, 11000.0, 30.0, 300.0, 2.7, 0.1, shift)
        values = ctf(k * np.cos(AZIMUTHS), k * np.sin(AZIMUTHS), optics)
        np.testing.assert_allclose(values, 0.0, atol=1e-5)
        finer = [ctf(f * k * np.cos(AZIMUTHS), f * k * np.sin(AZIMUTHS), optics) for f in np.linspace(0.02, 0.98, 40)]
        assert np.min(np.abs(finer)) > 0.005  # none before
    mean_A, ratio = first_zero(from_uv(12000.0, 11000.0, 30.0), SCOPE)
    assert ratio == pytest.approx(np.sqrt(12000.0 / 11000.0), rel=0.01)  # Cs shifts it a little
    assert mean_A == pytest.approx(np.sqrt(SCOPE.wavelength_A * 11500.0 / (1 - SCOPE.offset / np.pi)), rel=0.01)
    assert first_zero(Defocus(300.0), SCOPE) == (0.0, 0.0)  # the phase turns back before π


def test_the_validity_of_a_round_ctf_is_the_root_of_wavelength_times_astigmatism() -> None:
    assert astigmatic_validity_A(from_uv(16500.0, 15000.0, 12.0), SCOPE) == pytest.approx(5.43, abs=0.01)


def test_the_margin_is_the_height_of_the_first_ring_over_the_scatter_along_the_zero() -> None:
    n, pixel, d = 512, 1.75, from_uv(15500.0, 14500.0, 25.0)
    axis = (np.arange(n) - n // 2) / (n * pixel)
    kx, ky = np.meshgrid(axis, axis)
    rings = ctf(kx, ky, CtfParameters(15500.0, 14500.0, 25.0, 300.0, 2.7, 0.1)) ** 2
    noise = np.random.default_rng(0).standard_normal((n, n))
    enhanced = EnhancedPsd(10.0 * rings + noise, np.hypot(kx, ky) < 0.25, pixel)
    margin, ratio = ring_margins(enhanced, d, SCOPE)
    # bilinear interpolation leaves (2/3)² of the noise's variance; 180 azimuths
    assert margin == pytest.approx(10.0 / (2.0 / 3.0), rel=0.2)
    assert ratio == pytest.approx(1.0, abs=0.3)
    assert ring_margins(enhanced, Defocus(900.0), SCOPE) == (0.0, 1000.0)  # rings beyond Nyquist


def test_a_round_spectrum_is_like_itself_turned_and_a_striped_one_is_not() -> None:
    axis = np.arange(128) - 64
    r = np.hypot(axis[:, None], axis[None, :])
    mask = r < 60
    assert correlation_90(EnhancedPsd(np.cos(r / 3.0), mask, 1.0)) == pytest.approx(1.0, abs=1e-9)
    stripes = np.cos(axis[None, :] / 3.0) + 0 * axis[:, None]
    assert abs(correlation_90(EnhancedPsd(stripes, mask, 1.0))) < 0.1
    # |mean over rings| / largest, of a disc of radius 20: the radii 0 to 20
    assert radial_integral(EnhancedPsd(np.where(r < 20.5, -3.0, 0.0), mask, 1.0)) == pytest.approx(21.0, abs=0.1)


def test_iceness_is_1_on_a_flat_spectrum_and_rises_with_a_ring_at_3_8_angstrom() -> None:
    assert iceness(flat()) == pytest.approx(1.0, abs=0.01)
    spectrum = flat()
    u = np.hypot(np.fft.fftfreq(512)[:, None], np.arange(257)[None, :] / 512) / 1.4
    spectrum.power[np.abs(u - 1 / 3.8) < 0.008] *= 1.10
    assert iceness(spectrum) > 1.03
    assert iceness(flat(pixel=1.9)) == 0.0


def test_local_spectra_that_drift_have_a_large_first_component_with_few_runs() -> None:
    rng = np.random.default_rng(1)
    quiet = 0.05 * rng.standard_normal((64, 30))
    trend = np.linspace(-1.0, 1.0, 64)[:, None] * rng.standard_normal(30)
    even, drifting = (
        spectrum_stability(Periodogram(flat().power, 0.9 * flat().power, local, 9.0, np.ones(512), 1.4))
        for local in (quiet, quiet + trend)
    )
    assert even[0] == drifting[0] == pytest.approx(0.9)
    assert drifting[1] > 20.0 * even[1]
    assert drifting[2] < -6.0
    assert abs(even[2]) < 2.5


def test_the_runs_deviate_is_that_of_wald_and_wolfowitz() -> None:
    signs = np.array([1, 1, 0, 0, 0, 1, 0, 1, 1, 1], dtype=bool)  # 5 runs of 6 and 4
    expected, variance = 1 + 2 * 6 * 4 / 10, (2 * 24 * (48 - 10)) / (100 * 9)
    assert runs_deviate(signs) == pytest.approx((5 - expected) / np.sqrt(variance))
    assert runs_deviate(np.ones(5, dtype=bool)) == 0.0


def test_grey_values_of_a_gaussian_are_normal_and_those_of_two_levels_are_not() -> None:
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((500, 500))
    assert histogram_normality(normal) < 0.01
    assert histogram_normality(np.sign(normal) + 0.1 * rng.standard_normal((500, 500))) > 0.5


def test_the_resolution_is_where_the_significance_beyond_its_peak_falls_below_3() -> None:
    u = np.linspace(0.01, 0.28, 28)
    t = np.where(u < 0.195, 20.0, 1.0)
    t[u < 0.045] = 0.0
    assert fit_resolution_A(u, t, 35.0, 17.0) == pytest.approx(1 / 0.2)
    assert fit_resolution_A(u, np.full(28, 5.0), 35.0, 17.0) == 35.0
    assert fit_resolution_A(u, np.where(u < 0.05, 30.0, 0.0), 35.0, 17.0) == 35.0  # before the first zero: background
    assert fit_resolution_A(u, np.full(28, 9.0), 35.0, 17.0) == pytest.approx(1 / 0.28)


def test_heights_are_those_of_bounded_least_squares() -> None:
    rng = np.random.default_rng(4)
    columns, free = rng.random((300, 4)), rng.standard_normal((300, 3))
    target = columns @ np.array([1.0, 0.0, -2.0, 0.5]) + free @ np.array([-1.0, 0.3, 2.0]) + rng.standard_normal(300)
    x, y = separable_heights(columns, free, target)
    lower = np.array([0.0] * 4 + [-np.inf] * 3)
    expected = optimize.lsq_linear(np.hstack([columns, free]), target, (lower, np.inf), method="bvls").x
    np.testing.assert_allclose(np.concatenate([x, y]), expected, atol=1e-4)  # the ridge is 1e-6
    assert x.min() == 0.0


def test_an_elliptic_hill_has_its_centres_at_its_axes() -> None:
    hill = Hill(0.1, 500.0, 0.004, 0.003, 0.5)
    centre_u, centre_v, sharp_u, sharp_v, angle = hill.axes()
    assert (centre_u, centre_v) == pytest.approx((0.105, 0.095))
    twice = 2.0 * np.radians(angle)
    u = np.array([centre_u, centre_u + 0.02])
    expected = [1.0, np.exp(-sharp_u * 0.02**2)]
    np.testing.assert_allclose(hill.at(u, np.cos(twice), np.sin(twice)), expected, rtol=1e-9)
    across = hill.at(np.array([centre_v + 0.02]), -np.cos(twice), -np.sin(twice))
    np.testing.assert_allclose(across, np.exp(-sharp_v * 0.02**2), rtol=1e-9)
