from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import SphericalVoronoi, cKDTree

from cryopipe.errors import InputError
from cryopipe.imaging.geometry import angular_distance_deg, random_rotations
from cryopipe.imaging.symmetry import in_asymmetric_unit, symmetry_operators
from cryopipe.search import grid


def test_healpix_centres_are_those_of_the_published_ring_scheme() -> None:
    # Górski 2005, eqs. 4-9, worked by hand for nside 2: first pixel of the polar cap, first of the belt, and of the
    # equator.
    directions = grid.healpix_directions(1)
    assert directions.shape == (48, 3)
    heights = directions[[0, 4, 12, 20], 2]
    np.testing.assert_allclose(heights, [1 - 1 / 12, 1 - 4 / 12, 4 / 3 - 2 * 3 / 6, 0], atol=1e-12)
    azimuth = np.degrees(np.arctan2(directions[[0, 4, 12], 1], directions[[0, 4, 12], 0]))
    np.testing.assert_allclose(azimuth, [45.0, 22.5, 0.0], atol=1e-9)


@pytest.mark.parametrize("order", [0, 2, 4])
def test_healpix_directions_are_unit_vectors_spread_evenly(order: int) -> None:
    directions = grid.healpix_directions(order)
    assert len(directions) == 12 * 4**order
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(directions.mean(axis=0), 0, atol=1e-12)
    # Equal areas: the second moment tends to I/3; its deviation at nside 2^order is 1/(6 nside²) or less.
    second = directions.T @ directions / len(directions)
    np.testing.assert_allclose(second, np.eye(3) / 3, atol=1 / (6 * 4**order) + 1e-12)


@pytest.mark.parametrize(("order", "octahedral"), [(1, 2), (2, 9), (3, 34), (4, 132)])
def test_the_octahedral_grid_has_hardly_more_directions_than_the_sphere_over_24(order: int, octahedral: int) -> None:
    # 2, 8, 32, 128 would share the sphere out evenly; the closed unit holds 2, 10, 38, 138, equivalents included.
    in_plane = 6 * 2**order
    assert len(grid.orientation_grid(order)) == 12 * 4**order * in_plane
    assert len(grid.orientation_grid(order, "O")) == octahedral * in_plane
    assert octahedral <= in_asymmetric_unit(grid.healpix_directions(order), "O").sum()


@pytest.mark.parametrize("group", ["C2", "C4", "D2", "D7", "T", "O", "I"])
def test_no_two_directions_of_a_grid_are_equivalent(group: str) -> None:
    directions = grid.orientation_grid(3, group)[:: 6 * 8, 2]
    for g in symmetry_operators(group)[1:]:
        mates = np.linalg.norm(directions[:, None] - (directions @ g)[None], axis=2)
        own = np.arange(len(directions))
        mates[own, own] = 1  # a direction on an axis is its own mate
        assert mates.min() > 1e-3


@pytest.mark.parametrize("group", ["C1", "C3", "D2", "D7", "T", "O", "I"])
@pytest.mark.parametrize("displaced", [False, True])
def test_every_pose_has_a_grid_point_within_the_covering_radius_up_to_symmetry(group: str, displaced: bool) -> None:
    rng = np.random.default_rng(5)
    rotation = grid.random_displacement(rng, 2) if displaced else None
    poses = grid.orientation_grid(2, group, rotation=rotation)
    operators = symmetry_operators(group)
    limit = grid.covering_radius_deg(2)
    nearest = [angular_distance_deg(pose[None], poses, operators).min() for pose in random_rotations(rng, 60)]
    assert max(nearest) <= limit
    assert max(nearest) > 0.4 * limit  # the radius is no overestimate


@pytest.mark.parametrize("group", ["D2", "T", "O", "I"])
def test_directions_along_the_border_are_covered_too(group: str) -> None:
    finer = grid.healpix_directions(6)
    inside = in_asymmetric_unit(finer, group)
    border = finer[inside & ~in_asymmetric_unit(finer, group, tolerance=-0.02)]
    directions = grid.orientation_grid(3, group)[:: 6 * 8, 2]
    mates = np.concatenate([directions @ g for g in symmetry_operators(group)])
    farthest = np.degrees(np.arccos(np.clip((border @ mates.T).max(axis=1), -1, 1))).max()
    assert len(border) > 50
    assert farthest <= grid.covering_radius_deg(3)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_the_covering_radius_is_that_of_the_voronoi_cells_and_half_an_in_plane_step(order: int) -> None:
    centres = grid.healpix_directions(order)
    corners = SphericalVoronoi(centres, threshold=1e-9).vertices
    distance, _ = cKDTree(centres).query(corners)
    corner, turn = 2 * np.arcsin(distance.max() / 2), np.radians(60 / 2**order) / 2
    expected = np.degrees(2 * np.arccos(np.cos(corner / 2) * np.cos(turn / 2)))
    assert grid.covering_radius_deg(order) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("group", ["C2", "C3", "C4", "D2", "D4", "D7", "T", "O", "I"])
def test_weights_add_up_to_the_sphere_over_the_group(group: str) -> None:
    weights = grid.orientation_weights(grid.orientation_grid(2, group), group)
    assert weights.sum() * len(symmetry_operators(group)) == pytest.approx(4608, rel=1e-9)
    assert 0.2 < weights.min() <= weights.max() < 1.2


@pytest.mark.parametrize("group", ["C2", "C4", "D2", "D4"])
def test_all_poses_weigh_the_same_in_groups_that_map_the_grid_onto_itself(group: str) -> None:
    # Areas are measured with 64 points a pixel: 6 % of a pixel's area.
    np.testing.assert_allclose(grid.orientation_weights(grid.orientation_grid(2, group), group), 1, atol=0.06)


def test_poses_that_are_no_grid_have_no_weights() -> None:
    with pytest.raises(InputError, match="7 poses are not a HEALPix grid"):
        grid.orientation_weights(random_rotations(np.random.default_rng(0), 7), "O")


def test_displacement_stays_within_half_a_step_and_moves_the_grid() -> None:
    rng = np.random.default_rng(1)
    turns = [angular_distance_deg(grid.random_displacement(rng, 3), np.eye(3)) for _ in range(200)]
    assert max(turns) <= 3.75
    assert np.mean(turns) > 1.0


def test_in_plane_grid_turns_about_the_view_only() -> None:
    poses = grid.in_plane_grid(8, offset_deg=5)
    np.testing.assert_allclose(poses[:, 2], np.tile([0, 0, 1], (8, 1)), atol=1e-15)
    np.testing.assert_allclose(angular_distance_deg(poses[0], poses[1]), 45)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: grid.healpix_directions(10), "order 10"),
        (lambda: grid.in_plane_grid(0), "0 angles"),
    ],
)
def test_impossible_grids_are_refused_with_the_value(call: object, text: str) -> None:
    with pytest.raises(InputError, match=text):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("diameter_A", [80.0, 150.0, 400.0])
def test_the_grid_follows_from_diameter_and_resolution(diameter_A: float) -> None:
    # at a given share of the diameter the same grid does for all particles
    orders = [
        grid.order_for(share * diameter_A, diameter_A, share=0.85, finest=4) for share in (0.35, 0.16, 0.08, 0.01)
    ]
    assert orders == [1, 2, 3, 4]
    for order, share in zip(orders[:3], (0.35, 0.16, 0.08), strict=True):
        assert grid.rim_step_A(order, diameter_A) <= 0.85 * share * diameter_A < grid.rim_step_A(order - 1, diameter_A)
