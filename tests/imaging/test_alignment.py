"""Rotated maps and the alignment of maps whose true rotation, shift and hand are known."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.errors import InputError
from cryopipe.imaging.alignment import align_map, rotation_grid
from cryopipe.imaging.fourier import rfftn_centred
from cryopipe.imaging.fsc import fourier_shell_correlation
from cryopipe.imaging.geometry import angular_distance_deg, random_rotations, rotation_from_vector
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.imaging.transform import invert_hand, oversampling_for, rotate_volume

BOX, PIXEL = 64, 2.5


def _density(points, box=BOX, pixel=PIXEL, sigma=2.2):
    """Gaussians at (x, y, z) in Å from the centre voxel: analytic, so that a rotated map needs no interpolation."""
    axis = (np.arange(box) - box // 2) * pixel
    volume = np.zeros((box,) * 3, np.float32)
    for centre in points:
        gx, gy, gz = (np.exp(-((axis - c) ** 2) / (2 * sigma**2)).astype(np.float32) for c in centre)
        volume += gz[:, None, None] * gy[None, :, None] * gx[None, None, :]
    return volume


def _cloud(rng, n, inner, outer):
    d = rng.standard_normal((n, 3))
    return d / np.linalg.norm(d, axis=1, keepdims=True) * rng.uniform(inner, outer, n)[:, None]


@pytest.mark.parametrize(("pixel", "tolerance"), [(1.0, 2e-3), (2.0, 2e-3)])
def test_a_rotated_and_shifted_map_is_the_map_of_the_moved_atoms(pixel, tolerance, rng):
    points = _cloud(rng, 40, 0, 12 * pixel)
    rotation = random_rotations(rng, 1)[0]
    shift = np.array([1.3, -2.6, 0.4])
    volume = _density(points, 48, pixel)
    oversampling = oversampling_for(6.0, pixel)
    assert oversampling == (1 if pixel == 1.0 else 2)
    moved = rotate_volume(volume, rotation, shift_xyz_px=shift, oversampling=oversampling)
    expected = _density(points @ rotation.T + shift * pixel, 48, pixel)
    assert np.abs(moved - expected).max() < tolerance * expected.max()


def test_the_opposite_hand_is_the_map_of_the_inverted_atoms(rng):
    points = _cloud(rng, 20, 0, 40)
    for box in (48, 49):
        np.testing.assert_allclose(invert_hand(_density(points, box)), _density(-points, box), atol=1e-6)


def test_inverting_twice_gives_the_map_back(rng):
    volume = rng.standard_normal((12,) * 3).astype(np.float32)
    np.testing.assert_array_equal(invert_hand(invert_hand(volume)), volume)
    np.testing.assert_allclose(rfftn_centred(invert_hand(volume)), np.conj(rfftn_centred(volume)), atol=1e-5)


def test_the_grid_of_rotations_leaves_no_gap(rng):
    grid = rotation_grid(4608)
    nearest = [angular_distance_deg(pose, grid).min() for pose in random_rotations(rng, 300)]
    # 4608 rotations are 14.8° apart on a cubic lattice, whose holes lie 12.8° from a point.
    assert max(nearest) < 14.0
    assert np.mean(nearest) < 8.5


def test_a_noisy_asymmetric_map_is_aligned_in_angle_shift_and_hand(rng):
    points = _cloud(rng, 150, 5, 45)
    rotation, shift = random_rotations(rng, 1)[0], np.array([3.3, -2.1, 4.7])
    reference = _density(points)
    moving = invert_hand(_density((points - shift) @ rotation))
    moving = moving + 0.3 * moving.std() * rng.standard_normal(moving.shape).astype(np.float32)
    before = moving.copy()
    found = align_map(moving, reference, PIXEL, resolution_A=7.0, allow_hand=True)
    np.testing.assert_array_equal(moving, before)
    assert found.mirrored
    assert found.other_hand_correlation < 0.5 < 0.9 < found.correlation
    assert angular_distance_deg(found.rotation, rotation) < 0.1
    np.testing.assert_allclose(found.shift_xyz_px * PIXEL, shift, atol=0.05)
    aligned = fourier_shell_correlation(found.aligned, reference)
    # The bound is the same noise on the reference itself: alignment may cost no more than 0.01 to 7 Å.
    ceiling = reference + 0.3 * reference.std() * rng.standard_normal(reference.shape).astype(np.float32)
    shells = slice(2, int(BOX * PIXEL / 7.0) + 1)
    assert np.all(aligned[shells] > fourier_shell_correlation(ceiling, reference)[shells] - 0.01)


@pytest.fixture(scope="module")
def octahedral():
    rng = np.random.default_rng(11)
    unique = _cloud(rng, 10, 38, 58)
    return np.concatenate([unique @ g.T for g in symmetry_operators("O")])


def test_an_octahedral_shell_is_aligned_to_the_smallest_equivalent_rotation(octahedral):
    rotation = rotation_from_vector(np.deg2rad([3.0, -14.0, 9.0]))
    shift = np.array([1.2, -0.7, 0.4])
    reference = _density(octahedral)
    moving = _density((octahedral - shift) @ rotation)
    found = align_map(moving, reference, PIXEL, resolution_A=7.0, symmetry="O")
    assert not found.mirrored
    assert found.other_hand_correlation is None
    assert angular_distance_deg(found.rotation, rotation) < 0.1
    np.testing.assert_allclose(found.shift_xyz_px * PIXEL, shift, atol=0.05)
    assert fourier_shell_correlation(found.aligned, reference)[2:23].min() > 0.995


def test_unrelated_maps_do_not_correlate(rng):
    a, b = (_density(_cloud(rng, 60, 5, 45)) for _ in range(2))
    assert align_map(a, b, PIXEL, resolution_A=10.0, symmetry="O").correlation < 0.4


def test_maps_that_cannot_be_aligned_are_refused():
    volume = np.zeros((16,) * 3, np.float32)
    with pytest.raises(InputError, match="Resample"):
        align_map(volume, np.zeros((18,) * 3, np.float32), 2.0)
    with pytest.raises(InputError, match="Nyquist"):
        align_map(volume, volume, 2.0, resolution_A=3.0)
    with pytest.raises(InputError, match="no positive density"):
        align_map(volume, volume, 2.0)
    with pytest.raises(InputError, match="orthonormal"):
        rotate_volume(volume, np.zeros((3, 3)))
