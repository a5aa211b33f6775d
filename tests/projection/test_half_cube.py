from __future__ import annotations

import numpy as np
import pytest

from cryopipe.errors import InputError
from cryopipe.imaging.fourier import rfft2_centred
from cryopipe.imaging.fourier_pixels import half_plane
from cryopipe.imaging.geometry import random_rotations
from cryopipe.kernels.slices import extract_slices
from cryopipe.projection.half_cube import cube_shape, gridding_profile, half_cube, volume_from_half_cube
from cryopipe.projection.references import reference_cube
from tests.particle_scenes import phantom


@pytest.mark.parametrize(("box", "radius", "padding"), [(32, 15, 2), (36, 9, 2), (20, 9, 3), (30, 14, 2)])
def test_half_cube_holds_the_padded_transform_of_the_volume(box: int, radius: int, padding: int) -> None:
    volume = np.random.default_rng(0).normal(size=(box,) * 3).astype(np.float32)
    cube = half_cube(volume, radius, padding=padding)
    size = padding * box
    padded = np.zeros((size,) * 3)
    low = size // 2 - box // 2
    padded[low : low + box, low : low + box, low : low + box] = volume
    direct = np.fft.fftn(np.fft.ifftshift(padded)) / box
    edge = cube.shape[2] - 1
    k = np.arange(-edge, edge + 1) % size
    expected = direct[np.ix_(k, k, np.arange(edge + 1) % size)]
    assert cube.shape == cube_shape(radius, padding)
    # float32 transforms of some 1e4 values: rounding 1e-6 of the largest coefficient.
    np.testing.assert_allclose(cube, expected, atol=2e-6 * np.abs(expected).max())


def test_central_slice_is_the_orthonormal_spectrum_of_the_projection() -> None:
    volume = phantom(32).volume()
    pixels = half_plane(32, 15)
    cube = half_cube(volume, 15)
    found = extract_slices(cube, np.eye(3, dtype=np.float32)[None], pixels.kx, pixels.ky)[0]
    expected = pixels.gather(rfft2_centred(volume.sum(axis=0)))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_the_inverse_returns_the_volume_and_drops_nothing_inside_the_radius() -> None:
    volume = np.random.default_rng(1).normal(size=(24, 24, 24)).astype(np.float32)
    cube = half_cube(volume, 11)
    found = volume_from_half_cube(cube, 24)
    # All of a 24 box at padding 2 fits the cube but the row at -Nyquist stands twice; its value is the same: identity
    # to rounding.
    np.testing.assert_allclose(found, volume, atol=1e-5)


def test_rows_that_are_made_on_the_way_take_the_place_of_the_cubes() -> None:
    volume = np.random.default_rng(1).normal(size=(16, 16, 16)).astype(np.float32)
    cube = half_cube(volume, 5)
    factor = np.random.default_rng(2).uniform(size=cube.shape).astype(np.float32)
    one = volume_from_half_cube(cube, 16, rows=lambda part: cube[:, part] * factor[:, part])
    np.testing.assert_array_equal(one, volume_from_half_cube(cube * factor, 16))


@pytest.mark.parametrize(("padding", "limit"), [(2, 0.042), (3, 0.016)])
def test_slices_agree_with_analytic_projections(padding: int, limit: float) -> None:
    # 64 px, |k| <= 28, particle of 0.64 box: this phantom measures 0.9 % at padding 2, 0.2 % at padding 3; the limits
    # are measured on a hard-edged shell (4.0 % and 1.5 %).
    truth = phantom(64)
    pixels = half_plane(64, 28)
    rotations = random_rotations(np.random.default_rng(3), 20)
    cube = reference_cube(truth.volume(), 28, padding=padding)
    found = extract_slices(cube, rotations, pixels.kx, pixels.ky, padding=padding)
    expected = truth.slices(rotations, pixels)
    error = np.sqrt(np.mean(np.abs(found - expected) ** 2) / np.mean(np.abs(expected) ** 2))
    print(f"padding {padding}: relative rms {error:.4f}")
    assert error < limit


def test_gridding_correction_lowers_the_error_of_slices() -> None:
    truth = phantom(32)
    pixels = half_plane(32, 12)
    rotations = random_rotations(np.random.default_rng(3), 10)
    expected = truth.slices(rotations, pixels)
    errors = [
        np.linalg.norm(extract_slices(cube, rotations, pixels.kx, pixels.ky) - expected)
        for cube in (half_cube(truth.volume(), 12), reference_cube(truth.volume(), 12))
    ]
    assert errors[1] < 0.6 * errors[0]


def test_gridding_profile_is_the_transform_of_a_triangle() -> None:
    profile = gridding_profile(16, 2)
    assert profile[8] == 1
    # Transform of a triangle of half width one grid step at x = 8 of a padded box of 32: sinc²(1/4).
    assert profile[0] == pytest.approx((np.sin(np.pi / 4) / (np.pi / 4)) ** 2, rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "radius", "padding", "text"),
    [
        ((15, 15, 15), 5, 2, "even"),
        ((16, 16, 14), 5, 2, "cube"),
        ((16, 16, 16), 8, 2, "radius 8"),
        ((16, 16, 16), 5, 0, "padding must .* not 0"),
    ],
)
def test_volumes_that_do_not_fit_are_refused(shape: tuple[int, ...], radius: int, padding: int, text: str) -> None:
    with pytest.raises(InputError, match=text):
        half_cube(np.zeros(shape, np.float32), radius, padding=padding)
