"""Orientations against the matrices of RELION's convention and against each other."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.errors import InputError
from cryopipe.imaging import geometry
from cryopipe.imaging.fourier import rfft2_centred
from cryopipe.imaging.symmetry import symmetry_operators


def _axis(axis, degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return {"z": np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]), "y": np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])}[axis]


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 0, 0), (10, 50, -70), (-120, 170, 15), (200, 90, 33)])
def test_a_pose_is_psi_after_tilt_after_rot_about_the_new_axes(angles):
    rot, tilt, psi = angles
    expected = _axis("z", psi) @ _axis("y", tilt) @ _axis("z", rot)
    np.testing.assert_allclose(geometry.euler_to_matrix(rot, tilt, psi), expected, atol=1e-14)


def test_third_row_is_the_viewing_direction_of_rot_and_tilt():
    rot, tilt = np.deg2rad(40.0), np.deg2rad(65.0)
    view = geometry.viewing_direction(geometry.euler_to_matrix(40.0, 65.0, -20.0))
    np.testing.assert_allclose(view, [np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)], atol=1e-14)


def test_a_projected_point_appears_at_the_pose_matrix_times_its_position():
    # A Gaussian at p projects to one at (A p)[:2]: its spectrum has the phase of the point at A.T (kx, ky, 0).
    point = np.array([5.0, -3.0, 8.0])
    pose = geometry.euler_to_matrix(25.0, 70.0, -140.0)
    x, y = (pose @ point)[:2]
    grid_y, grid_x = np.mgrid[:64, :64] - 32
    image = np.exp(-((grid_x - x) ** 2 + (grid_y - y) ** 2) / 8.0).astype(np.float32)
    spectrum = rfft2_centred(image)
    for kx, ky in ((3, 2), (1, -4), (5, 0)):
        in_map = pose.T @ np.array([kx, ky, 0.0])
        assert np.angle(spectrum[ky, kx] * np.exp(2j * np.pi * in_map @ point / 64)) == pytest.approx(0.0, abs=1e-4)


def test_angles_of_random_poses_come_back(rng):
    poses = geometry.random_rotations(rng, 500)
    angles = geometry.matrix_to_euler(poses)
    np.testing.assert_allclose(geometry.euler_to_matrix(*angles.T), poses, atol=1e-13)
    assert np.all((angles[:, 1] >= 0) & (angles[:, 1] <= 180))


@pytest.mark.parametrize("tilt", [0.0, 180.0])
def test_at_the_poles_rot_is_zero_and_the_pose_is_kept(tilt):
    pose = geometry.euler_to_matrix(33.0, tilt, 71.0)
    angles = geometry.matrix_to_euler(pose)
    assert angles[0] == 0.0
    np.testing.assert_allclose(geometry.euler_to_matrix(*angles), pose, atol=1e-14)


def test_random_rotations_are_rotations_and_uniform(rng):
    poses = geometry.random_rotations(rng, 20000)
    np.testing.assert_allclose(poses @ np.swapaxes(poses, 1, 2), np.broadcast_to(np.eye(3), poses.shape), atol=1e-13)
    np.testing.assert_allclose(np.linalg.det(poses), 1.0, atol=1e-13)
    # Every matrix element of a uniform rotation has mean 0 and variance 1/3: five standard errors.
    assert np.abs(poses.mean(axis=0)).max() < 5 * np.sqrt(1 / 3 / 20000)
    assert np.abs((poses**2).mean(axis=0) - 1 / 3).max() < 5 * np.sqrt(4 / 45 / 20000)


def test_rotation_by_a_vector_turns_right_handed_about_it():
    quarter = geometry.rotation_from_vector([0.0, 0.0, np.pi / 2])
    np.testing.assert_allclose(quarter @ [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], atol=1e-15)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 0.3, 3.0, np.pi - 1e-9])
def test_rotation_vectors_come_back_at_every_angle(angle, rng):
    axes = rng.standard_normal((20, 3))
    vectors = axes / np.linalg.norm(axes, axis=1, keepdims=True) * angle
    np.testing.assert_allclose(geometry.rotation_to_vector(geometry.rotation_from_vector(vectors)), vectors, atol=1e-12)


def test_small_rotation_vectors_match_the_series_across_its_border():
    vector = np.array([0.6, 0.0, 0.8])
    for angle in (0.99e-4, 1.01e-4):
        turned = geometry.rotation_from_vector(vector * angle)
        assert np.trace(turned) == pytest.approx(1 + 2 * np.cos(angle), abs=1e-15)


def test_quaternions_come_back_from_matrices(rng):
    quaternions = rng.standard_normal((300, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True) * np.sign(quaternions[:, :1])
    back = geometry.matrix_to_quaternion(geometry.quaternion_to_matrix(quaternions))
    np.testing.assert_allclose(back, quaternions, atol=1e-12)


@pytest.mark.parametrize("angle", [1e-7, 0.01, 5.0, 120.0, 179.9999])
def test_distance_between_poses_is_the_angle_between_them(angle, rng):
    poses = geometry.random_rotations(rng, 10)
    axis = np.array([2.0, -1.0, 2.0]) / 3.0
    turned = geometry.rotation_from_vector(axis * np.deg2rad(angle)) @ poses
    # Near 180° the chord's arcsine is flat: 1e-16 of rounding becomes 1e-8 rad.
    np.testing.assert_allclose(geometry.angular_distance_deg(poses, turned), angle, rtol=1e-7, atol=2e-12)


def test_symmetry_equivalent_poses_have_distance_zero(rng):
    operators = symmetry_operators("O")
    poses = geometry.random_rotations(rng, 24)
    mates = np.einsum("nij,njk->nik", poses, operators)
    tilted = geometry.rotation_from_vector([0.0, np.deg2rad(3.0), 0.0]) @ mates
    np.testing.assert_allclose(geometry.angular_distance_deg(poses, tilted, operators), 3.0, atol=1e-10)


def test_something_that_is_no_matrix_is_refused():
    with pytest.raises(InputError, match=r"\(4,\)"):
        geometry.matrix_to_euler(np.zeros(4))
