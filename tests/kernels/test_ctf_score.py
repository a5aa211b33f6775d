"""The CTF score, against float64 and against what a search asks of it."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.kernels import ctf_score as module
from tests.kernels.reference import ctf_score as reference

OPTICS = {"wavelength_A": 0.0196875, "cs_mm": 2.7, "amplitude_contrast": 0.1}


@pytest.fixture
def pixels(rng):
    """k2, cos2, sin2 of a half plane between 30 and 4 Å."""
    k = rng.uniform(1 / 30, 1 / 4, 3000)
    angle = rng.uniform(-np.pi / 2, np.pi / 2, 3000)
    return tuple(a.astype(np.float32) for a in (k**2, np.cos(2 * angle), np.sin(2 * angle)))


def spectrum(pixels, u, v, angle, phase_shift=0.0):
    """|CTF| itself, whose score is 1 at the truth."""
    k2, cos2, sin2 = (a.astype(float) for a in pixels)
    twice = np.radians(2 * angle)
    defocus = (u + v) / 2 + (u - v) / 2 * (np.cos(twice) * cos2 + np.sin(twice) * sin2)
    lam = OPTICS["wavelength_A"]
    chi = np.pi * lam * k2 * (defocus - 0.5 * lam**2 * k2 * 2.7e7) + np.arcsin(0.1) + np.radians(phase_shift)
    return np.abs(np.sin(chi)).astype(np.float32)


def test_scores_agree_with_float64_from_low_to_very_high_defocus(fast, pixels, rng):
    amplitude = rng.random((2, 3000)).astype(np.float32)
    candidates = np.stack(
        [rng.uniform(1000, 60_000, (2, 21)), rng.uniform(1000, 60_000, (2, 21)), rng.uniform(0, 180, (2, 21))], -1
    )
    options = {"phase_shift_deg": rng.uniform(0, 180, (2, 21)), "weights": rng.random(3000).astype(np.float32)}
    got = fast.call("ctf_score.ctf_score", amplitude, *pixels, candidates, **options, **OPTICS)
    expected = reference.ctf_score(amplitude, *pixels, candidates, **options, **OPTICS)
    # phases up to 50 half turns off the middle in float32: 1e-5 each, averaged over 3000 pixels; 3e-7 is seen
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


def test_the_true_ctf_scores_one_and_every_other_candidate_less(on, pixels):
    amplitude = spectrum(pixels, 15_000, 14_000, 30)
    candidates = np.array(
        [[15_000, 14_000, 30], [14_000, 15_000, 120], [15_100, 14_100, 30], [15_000, 14_000, 120], [20_000, 20_000, 0]]
    )
    score = on.call("ctf_score.ctf_score", amplitude, *pixels, candidates, **OPTICS)
    np.testing.assert_allclose(score[:2], 1, atol=1e-6)  # exchanging U and V and turning by 90 degrees is the same CTF
    assert (score[2:] < 0.99).all()


def test_a_phase_plate_is_seen(on, pixels):
    amplitude = spectrum(pixels, 12_000, 12_000, 0, phase_shift=70)
    candidates = np.array([[12_000.0, 12_000, 0]] * 3)
    score = on.call(
        "ctf_score.ctf_score", amplitude, *pixels, candidates, phase_shift_deg=np.array([0.0, 70, 250]), **OPTICS
    )
    np.testing.assert_allclose(score[1:], 1, atol=1e-6)  # half a turn more leaves |CTF| alone
    assert score[0] < 0.9


def test_pixels_of_no_weight_do_not_count(on, pixels, rng):
    weights = (rng.random(3000) < 0.5).astype(np.float32)
    clean = spectrum(pixels, 9000, 8000, 10)
    spoilt = np.where(weights > 0, clean, 100).astype(np.float32)
    score = on.call("ctf_score.ctf_score", spoilt, *pixels, np.array([[9000.0, 8000, 10]]), weights=weights, **OPTICS)
    assert score[0] == pytest.approx(1, abs=1e-6)


def test_a_spectrum_without_amplitude_scores_zero(on, pixels):
    score = on.call(
        "ctf_score.ctf_score", np.zeros(3000, np.float32), *pixels, np.array([[9000.0, 8000, 10]]), **OPTICS
    )
    np.testing.assert_array_equal(score, [0])


def test_scores_do_not_depend_on_the_scale_of_the_spectrum(on, pixels, rng):
    amplitude = rng.random(3000).astype(np.float32)
    candidates = np.array([[9000.0, 8000, 10], [20_000, 19_000, 50]])
    one, two = (on.call("ctf_score.ctf_score", a, *pixels, candidates, **OPTICS) for a in (amplitude, amplitude * 8))
    np.testing.assert_allclose(one, two, rtol=1e-6)


def test_bad_inputs_are_refused(pixels):
    amplitude = np.ones(3000, np.float32)
    with pytest.raises(ValueError, match=r"candidates must have shape \(1, 3\)"):
        module.ctf_score(amplitude, *pixels, np.ones((1, 2)), **OPTICS)
    with pytest.raises(ValueError, match=r"amplitude_contrast must lie in \[0, 1\)"):
        module.ctf_score(amplitude, *pixels, np.ones((1, 3)), **{**OPTICS, "amplitude_contrast": 1.2})
    with pytest.raises(TypeError, match="k2 must be float32"):
        module.ctf_score(amplitude, pixels[0].astype(float), *pixels[1:], np.ones((1, 3)), **OPTICS)
    with pytest.raises(ValueError, match="phase_shift_deg must be a number or have shape"):
        module.ctf_score(amplitude, *pixels, np.ones((1, 3)), phase_shift_deg=np.zeros(2), **OPTICS)
