"""Fourier transforms, frequency grids, Fourier pixels, resampling and shifts, judged by analytic truth."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.errors import InputError
from cryopipe.imaging import fourier
from cryopipe.imaging.fourier import half_plane

# float32 transforms of 64 to 128 pixels round to some 3e-7 of the largest value.
ROUNDING = 3e-6


@pytest.mark.parametrize("shape", [(64, 64), (65, 65), (48, 63)])
def test_a_point_at_the_centre_pixel_has_a_constant_real_spectrum(shape):
    image = np.zeros(shape, np.float32)
    image[shape[0] // 2, shape[1] // 2] = 1.0
    spectrum = fourier.rfft2_centred(image)
    assert spectrum.dtype == np.complex64
    np.testing.assert_allclose(spectrum, 1.0 / np.sqrt(shape[0] * shape[1]), atol=1e-8)


@pytest.mark.parametrize("shape", [(64, 64), (65, 65), (48, 63)])
def test_inverse_image_transform_gives_the_images_back(shape, rng):
    images = rng.standard_normal((3, *shape)).astype(np.float32)
    back = fourier.irfft2_centred(fourier.rfft2_centred(images), shape)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, images, atol=ROUNDING)


@pytest.mark.parametrize("box", [32, 33])
def test_inverse_volume_transform_gives_the_volume_back(box, rng):
    volume = rng.standard_normal((box,) * 3).astype(np.float32)
    np.testing.assert_allclose(fourier.irfftn_centred(fourier.rfftn_centred(volume), box), volume, atol=ROUNDING)


def test_white_noise_of_sd_one_has_real_and_imaginary_parts_of_variance_one_half(rng):
    spectrum = fourier.rfft2_centred(rng.standard_normal((100, 64, 64)).astype(np.float32))[..., 1:-1]
    # 1.9e5 samples: the standard error of a variance of 0.5 is 0.5 √(2/N) = 0.0016; five of them.
    assert spectrum.real.var() == pytest.approx(0.5, abs=0.008)
    assert spectrum.imag.var() == pytest.approx(0.5, abs=0.008)


@pytest.mark.parametrize("box", [32, 33])
def test_central_slice_of_a_volume_is_the_orthonormal_spectrum_of_its_projection(box, rng):
    volume = rng.standard_normal((box,) * 3).astype(np.float32)
    central = fourier.rfftn_centred(volume)[0]
    np.testing.assert_allclose(central, fourier.rfft2_centred(volume.sum(axis=0)), atol=5e-5)


def test_a_volume_that_is_no_cube_is_refused_with_its_shape():
    with pytest.raises(InputError, match=r"\(4, 4, 6\)"):
        fourier.rfftn_centred(np.zeros((4, 4, 6), np.float32))


def test_frequency_grid_is_signed_and_in_inverse_angstrom():
    kx, ky = fourier.frequency_grid((6, 8), 2.0)
    assert kx.shape == ky.shape == (6, 5)
    np.testing.assert_allclose(kx[0], np.arange(5) / 16.0)
    np.testing.assert_allclose(ky[:, 0], np.array([0, 1, 2, -3, -2, -1]) / 12.0)


def test_volume_frequency_grid_has_x_fastest_and_first():
    kx, ky, kz = fourier.frequency_grid((4, 4, 4), 1.0)
    assert kx[0, 0, 1] == ky[0, 1, 0] == kz[1, 0, 0] == 0.25


def test_a_wave_of_n_periods_lies_in_shell_n():
    x = np.arange(60) - 30
    image = np.broadcast_to(np.cos(2 * np.pi * 7 * x / 60), (60, 60)).astype(np.float32)
    power = np.abs(fourier.rfft2_centred(image)) ** 2
    shells = fourier.shell_index((60, 60))
    assert power[shells == 7].sum() == pytest.approx(power.sum(), rel=1e-9)


def test_half_plane_holds_every_independent_pixel_once_and_no_other():
    pixels = half_plane(32, 12)
    found = {(int(x), int(y)) for x, y in zip(pixels.kx, pixels.ky, strict=True)}
    expected = set()
    for x in range(-15, 16):
        for y in range(-15, 16):
            if (x, y) != (0, 0) and round(np.hypot(x, y)) <= 12:
                expected.add((x, y))
    assert len(found) == len(pixels)
    assert {(-x, -y) for x, y in found} | found == expected
    assert not {(-x, -y) for x, y in found} & found


def test_half_plane_is_sorted_so_that_a_smaller_radius_is_a_prefix():
    large, small = half_plane(64, 28), half_plane(64, 11)
    assert large.count_within(11) == len(small)
    cropped = large.crop(11)
    np.testing.assert_array_equal(cropped.kx, small.kx)
    np.testing.assert_array_equal(cropped.ky, small.ky)
    np.testing.assert_array_equal(cropped.rfft_index, small.rfft_index)
    assert np.all(np.diff(large.shell) >= 0)


@pytest.mark.parametrize("box", [32, 33])
def test_gathered_pixels_are_the_coefficients_at_their_frequencies(box):
    pixels = half_plane(box, box // 2 - 1)
    shift = np.array([2, -3])  # content at (+2, -3) from the centre
    image = np.zeros((box, box), np.float32)
    image[box // 2 + shift[1], box // 2 + shift[0]] = box
    expected = np.exp(-2j * np.pi * (pixels.kx * shift[0] + pixels.ky * shift[1]) / box)
    np.testing.assert_allclose(pixels.gather(fourier.rfft2_centred(image)), expected, atol=1e-5)


def test_scatter_then_inverse_transform_is_a_band_limited_real_image(rng):
    pixels = half_plane(48, 20)
    images = rng.standard_normal((2, 48, 48)).astype(np.float32)
    values = pixels.gather(fourier.rfft2_centred(images))
    spectrum = pixels.scatter(values)
    back = fourier.rfft2_centred(fourier.irfft2_centred(spectrum, (48, 48)))
    np.testing.assert_allclose(back, spectrum, atol=ROUNDING)
    np.testing.assert_allclose(pixels.gather(back), values, atol=ROUNDING)


@pytest.mark.parametrize("radius", [0, 16, 40])
def test_a_radius_that_does_not_fit_the_box_is_refused(radius):
    with pytest.raises(InputError, match="between 1 and 15"):
        half_plane(32, radius)


def test_spectra_of_another_box_are_refused():
    with pytest.raises(InputError, match="box 32"):
        half_plane(32, 10).gather(np.zeros((30, 16), np.complex64))


def _waves(shape, step=1.0, origin=(0.0, 0.0)):
    """Return a band-limited image sampled anywhere: frequencies up to 5 periods over 40 x 40 units."""
    y = (np.arange(shape[0]) * step + origin[0])[:, None]
    x = (np.arange(shape[1]) * step + origin[1])[None, :]
    terms = ((1.0, 2, 3, 0.4), (0.7, -4, 1, 1.1), (0.5, 5, -5, 2.0))
    return 3.0 + sum(a * np.cos(2 * np.pi * (u * x + v * y) / 40.0 + p) for a, u, v, p in terms)


@pytest.mark.parametrize("new", [30, 25, 60, 55])
def test_resampling_gives_a_band_limited_image_at_the_new_sampling(new):
    image = _waves((40, 40)).astype(np.float32)
    resampled = fourier.resample(image, (new, new))
    np.testing.assert_allclose(resampled, _waves((new, new), 40 / new), atol=2e-5)


@pytest.mark.parametrize(("old", "new"), [(40, 25), (40, 61), (40, 30)])
def test_centred_resampling_keeps_the_centre_pixel_at_the_centre(old, new):
    image = _waves((old, old)).astype(np.float32)
    step = old / new
    origin = old // 2 - step * (new // 2)
    resampled = fourier.resample(image, (new, new), centred=True)
    np.testing.assert_allclose(resampled, _waves((new, new), step, (origin, origin)), atol=3e-5)


@pytest.mark.parametrize("shape", [(20, 24), (21, 25), (21, 24)])
def test_padding_then_cropping_gives_the_image_back_even_at_nyquist(shape, rng):
    image = rng.standard_normal(shape).astype(np.float32)
    padded = fourier.resample(image, (40, 50))
    np.testing.assert_allclose(fourier.resample(padded, shape), image, atol=ROUNDING)


def test_resampling_a_stack_of_volumes_keeps_each_mean(rng):
    volumes = (
        rng.standard_normal((2, 20, 20, 20)).astype(np.float32) + np.array([1, 5], np.float32)[:, None, None, None]
    )
    small = fourier.resample(volumes, (12, 12, 12))
    assert small.shape == (2, 12, 12, 12)
    np.testing.assert_allclose(small.mean(axis=(1, 2, 3)), volumes.mean(axis=(1, 2, 3)), atol=1e-5)


@pytest.mark.parametrize("box", [40, 41])
def test_shifting_moves_content_by_plus_the_shift(box):
    y, x = np.mgrid[:box, :box] - box // 2
    start = np.exp(-((x - 2.0) ** 2 + (y + 1.0) ** 2) / 18.0).astype(np.float32)
    moved = fourier.shift_images(start, (3.25, -1.5))
    np.testing.assert_allclose(moved, np.exp(-((x - 5.25) ** 2 + (y + 2.5) ** 2) / 18.0), atol=2e-5)


def test_every_image_of_a_stack_takes_its_own_shift(rng):
    images = rng.standard_normal((3, 32, 30)).astype(np.float32)
    shifts = np.array([[1, 0], [0, 2], [-3, 5]])
    moved = fourier.shift_images(images, shifts)
    for image, shift, result in zip(images, shifts, moved, strict=True):
        np.testing.assert_allclose(result, np.roll(image, (shift[1], shift[0]), (0, 1)), atol=ROUNDING)


def test_shifting_a_volume_takes_x_y_z():
    volume = np.zeros((8, 8, 8), np.float32)
    volume[4, 4, 4] = 1.0
    moved = fourier.shift_volume(volume, (1, 2, 3))
    assert np.unravel_index(moved.argmax(), moved.shape) == (7, 6, 5)


def test_shifts_that_do_not_match_the_stack_are_refused():
    with pytest.raises(InputError, match="do not fit"):
        fourier.shift_images(np.zeros((3, 8, 8), np.float32), np.zeros((2, 2)))


def test_threads_do_not_change_a_transform(rng):
    images = rng.standard_normal((8, 64, 64)).astype(np.float32)
    np.testing.assert_array_equal(fourier.rfft2_centred(images), fourier.rfft2_centred(images, threads=2))


def test_the_gpu_gives_the_same_transforms_pixels_and_resampling(rng, cupy):
    images = rng.standard_normal((4, 48, 48)).astype(np.float32)
    on_gpu = cupy.asarray(images)
    spectrum = fourier.rfft2_centred(images)
    # cuFFT and pocketfft round differently: some 1e-6 of values of order 1.
    np.testing.assert_allclose(fourier.rfft2_centred(on_gpu).get(), spectrum, atol=1e-5)
    pixels = half_plane(48, 20)
    values = pixels.gather(fourier.rfft2_centred(on_gpu))
    np.testing.assert_allclose(values.get(), pixels.gather(spectrum), atol=1e-5)
    np.testing.assert_allclose(pixels.scatter(values).get(), pixels.scatter(pixels.gather(spectrum)), atol=1e-5)
    np.testing.assert_allclose(fourier.resample(on_gpu, (30, 64)).get(), fourier.resample(images, (30, 64)), atol=1e-5)
    shifts = rng.uniform(-3, 3, (4, 2))
    np.testing.assert_allclose(
        fourier.shift_images(on_gpu, shifts).get(), fourier.shift_images(images, shifts), atol=1e-5
    )
