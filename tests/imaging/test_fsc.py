"""Shell correlation, resolution and the correction for masks, judged by signals of known signal-to-noise ratio."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cryopipe.errors import InputError
from cryopipe.imaging import fsc
from cryopipe.imaging.filters import apply_transfer
from cryopipe.imaging.fourier import irfftn_centred, radial_frequency, rfftn_centred, shell_index
from cryopipe.imaging.masks import soft_sphere

BOX, PIXEL = 64, 2.0


def _signal(rng, box=BOX):
    """Return a random map confined to a sphere, with power falling towards Nyquist."""
    noise = rng.standard_normal((box,) * 3).astype(np.float32)
    return apply_transfer(noise, 1.0, lambda k: np.exp(-((k / 0.12) ** 2))) * soft_sphere(box, box / 4, edge_px=5)


def test_identical_maps_correlate_fully_in_every_shell(rng):
    volume = rng.standard_normal((32,) * 3).astype(np.float32)
    curve = fsc.fourier_shell_correlation(volume, 3.0 * volume)
    assert curve.shape == (17,)
    np.testing.assert_allclose(curve, 1.0, atol=1e-6)


def test_opposite_contrast_gives_minus_one(rng):
    volume = rng.standard_normal((32,) * 3).astype(np.float32)
    np.testing.assert_allclose(fsc.fourier_shell_correlation(volume, -volume), -1.0, atol=1e-6)


@pytest.mark.parametrize("box", [24, 25])
def test_curve_is_that_of_a_plain_loop_over_the_full_transform(box, rng):
    a, b = rng.standard_normal((2, box, box, box)).astype(np.float32)
    a += 0.5 * b
    fa, fb = np.fft.fftn(a.astype(float)), np.fft.fftn(b.astype(float))
    k = np.fft.fftfreq(box) * box
    shells = np.rint(np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2))
    expected = [
        np.sum(fa[s] * np.conj(fb[s])).real / np.sqrt(np.sum(np.abs(fa[s]) ** 2) * np.sum(np.abs(fb[s]) ** 2))
        for s in (shells == i for i in range(box // 2 + 1))
    ]
    np.testing.assert_allclose(fsc.fourier_shell_correlation(a, b), expected, atol=2e-6)


def test_two_images_give_their_ring_correlation(rng):
    image = rng.standard_normal((40, 40)).astype(np.float32)
    np.testing.assert_allclose(fsc.fourier_shell_correlation(image, image), 1.0, atol=1e-6)


def test_curve_of_signal_with_independent_noise_is_the_known_ratio(rng):
    signal = rng.standard_normal((BOX,) * 3).astype(np.float32)
    halves = [signal + 2.0 * rng.standard_normal(signal.shape).astype(np.float32) for _ in range(2)]
    curve = fsc.fourier_shell_correlation(*halves)
    # SNR 1/4 gives 1/(1+4) = 0.2; shells from 10 on hold over 600 independent voxels: sd below 0.04.
    assert np.abs(curve[10:] - 0.2).max() < 0.13
    assert curve[10:].mean() == pytest.approx(0.2, abs=0.01)


def test_an_empty_map_correlates_with_nothing():
    zero = np.zeros((16,) * 3, np.float32)
    np.testing.assert_array_equal(fsc.fourier_shell_correlation(zero, zero + 1.0), 0.0)


def test_maps_of_different_shape_are_refused():
    with pytest.raises(InputError, match=r"\(8, 8, 8\) and \(9, 9, 9\)"):
        fsc.fourier_shell_correlation(np.zeros((8,) * 3), np.zeros((9,) * 3))


def test_resolution_is_interpolated_at_the_first_fall_below_the_threshold():
    curve = np.array([1.0, 0.9, 0.6, 0.4, 0.8, 0.1])
    found = fsc.resolution_at(curve, 0.5, 10, 1.5)
    assert found.shell == pytest.approx(2.5)
    assert found == pytest.approx(15.0 / 2.5)
    assert not found.at_nyquist


def test_a_curve_that_never_falls_gives_nyquist_and_says_so():
    found = fsc.resolution_at(np.full(33, 0.9), 0.143, 64, 1.5)
    assert found == 3.0
    assert found.at_nyquist


def test_a_curve_that_falls_at_once_gives_the_box():
    assert fsc.resolution_at(np.array([1.0, -0.5, 0.0]), 0.5, 10, 2.0) == 20.0


def test_a_resolution_is_a_number_for_json_and_formatting():
    found = fsc.resolution_at(np.array([1.0, 1.0, 0.0]), 0.5, 6, 1.0)
    assert json.loads(json.dumps({"r": found})) == {"r": 4.0}
    assert f"{found:.1f} Å" == "4.0 Å"


def test_a_curve_with_nan_is_refused():
    with pytest.raises(InputError, match="finite"):
        fsc.resolution_at(np.array([1.0, np.nan]), 0.5, 10, 1.0)


def test_phase_randomisation_keeps_amplitudes_and_the_inner_phases(rng):
    volume = _signal(rng, 32)
    random = fsc.randomise_phases(volume, 6, rng)
    before, after = rfftn_centred(volume), rfftn_centred(random)
    scale = np.abs(before).max()
    np.testing.assert_allclose(np.abs(after), np.abs(before), atol=1e-5 * scale)
    inner = shell_index(volume.shape) < 6
    np.testing.assert_allclose(after[inner], before[inner], atol=1e-5 * scale)
    curve = fsc.fourier_shell_correlation(volume, random)
    np.testing.assert_allclose(curve[:6], 1.0, atol=1e-5)
    assert abs(curve[6:].mean()) < 0.1


def test_a_mask_that_correlates_noise_is_corrected_to_the_truth(rng):
    # Signal to shell 10 only; beyond it the halves share nothing but a tight mask.
    signal = apply_transfer(_signal(rng) * 40.0, 1.0, lambda k: (k * BOX < 10.0).astype(np.float32))
    halves = [signal + rng.standard_normal(signal.shape).astype(np.float32) for _ in range(2)]
    mask = np.zeros((BOX,) * 3, np.float32)
    mask[28:36, 28:36, 20:44] = 1.0  # hard and small: the worst of masks
    # The mask smears the strong inner signal outwards: that is the correlation to be removed.
    curves = fsc.masked_fsc(*halves, mask, rng)
    assert 9 <= curves.randomised_from <= 12
    start = curves.randomised_from
    np.testing.assert_array_equal(curves.corrected[:start], curves.masked[:start])
    m, r = curves.masked[start:], curves.randomised[start:]
    formula = (m - r) / (1 - r)
    # two shells next to those that kept their phases: not below the unmasked curve
    lower = np.minimum(curves.masked, curves.unmasked)[start : start + 2]
    np.testing.assert_allclose(curves.corrected[start : start + 2], np.maximum(formula[:2], lower))
    np.testing.assert_allclose(curves.corrected[start + 2 :], formula[2:])
    beyond = slice(start + 2, None)
    assert curves.masked[beyond].mean() > 0.1
    assert abs(curves.corrected[beyond].mean()) < 0.06


def test_a_mask_raises_the_fsc_of_a_particle_in_noisy_solvent(rng):
    signal = _signal(rng)
    sd = 0.5 * signal.std()
    halves = [signal + sd * rng.standard_normal(signal.shape).astype(np.float32) for _ in range(2)]
    curves = fsc.masked_fsc(*halves, soft_sphere(BOX, BOX / 4 + 3, edge_px=6), rng)
    resolutions = [fsc.resolution_at(c, 0.143, BOX, PIXEL) for c in (curves.unmasked, curves.corrected)]
    assert resolutions[1] < resolutions[0]


def test_identical_halves_need_no_correction(rng):
    volume = _signal(rng, 32)
    curves = fsc.masked_fsc(volume, volume, np.ones_like(volume), rng)
    assert curves.randomised_from == 17
    np.testing.assert_allclose(curves.corrected, 1.0, atol=1e-5)


def test_a_mask_of_another_shape_is_refused(rng):
    with pytest.raises(InputError, match="mask"):
        fsc.masked_fsc(np.zeros((8,) * 3), np.zeros((8,) * 3), np.zeros((9,) * 3), rng)


def test_the_same_seed_gives_the_same_curves(rng):
    halves = rng.standard_normal((2, 24, 24, 24)).astype(np.float32)
    mask = soft_sphere(24, 8)
    a, b = (fsc.masked_fsc(*halves, mask, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(a.corrected, b.corrected)


def test_a_dip_of_the_curve_does_not_hide_what_a_mask_smears_outwards() -> None:
    # halves that agree to shell 10 but for a gap at shells 3 and 4, and are noise beyond: a tight mask smears the agreement
    box, rng = 48, np.random.default_rng(4)
    common = rng.standard_normal((box,) * 3, dtype=np.float32)
    shell = radial_frequency((box,) * 3) * box
    agrees = (shell < 10.5) & ~((shell > 2.5) & (shell < 4.5))
    halves = []
    for _ in range(2):
        own = rng.standard_normal((box,) * 3, dtype=np.float32)
        halves.append(irfftn_centred(np.where(agrees, rfftn_centred(common), 0.05 * rfftn_centred(own)), box))
    found = fsc.masked_fsc(halves[0], halves[1], soft_sphere(box, 8, edge_px=3), np.random.default_rng(1))
    assert found.randomised_from == 11
    assert found.masked[13] > 0.5  # smeared
    # taken off; a shell of a 48 px box inside a mask of radius 8 has some 20 independent values: 0.2 by chance
    assert np.abs(found.corrected[14:20]).max() < 0.35
    assert np.abs(found.corrected[14:20].mean()) < 0.2
