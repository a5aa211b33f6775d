"""Point groups: the operators, poses in the asymmetric unit, symmetrised maps; RELION as a peer."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest

from cryopipe.errors import InputError
from cryopipe.imaging import symmetry
from cryopipe.imaging.geometry import angular_distance_deg, euler_to_matrix, random_rotations

ORDERS = {"C1": 1, "C2": 2, "C7": 7, "D1": 2, "D2": 4, "D3": 6, "D7": 14, "T": 12, "O": 24} | dict.fromkeys(
    ("I", "I1", "I2", "I3", "I4"), 60
)
GROUPS = list(ORDERS)


@pytest.fixture
def directions(rng):
    d = rng.standard_normal((5000, 3))
    return d / np.linalg.norm(d, axis=1, keepdims=True)


@pytest.mark.parametrize("group", GROUPS)
def test_operators_form_a_group_of_the_known_order(group):
    operators = symmetry.symmetry_operators(group)
    assert len(operators) == ORDERS[group]
    np.testing.assert_array_equal(operators[0], np.eye(3))
    np.testing.assert_allclose(np.linalg.det(operators), 1.0, atol=1e-12)
    products = np.einsum("aij,bjk->abik", operators, operators)
    nearest = np.abs(products[:, :, None] - operators).max(axis=(-2, -1)).min(axis=-1)
    assert nearest.max() < 1e-12
    assert len(np.unique(np.rint(operators * 1e6), axis=0)) == len(operators)


@pytest.mark.relion
@pytest.mark.parametrize("group", GROUPS)
def test_operators_are_those_that_relion_prints(group):
    if shutil.which("relion_refine") is None:
        pytest.skip("relion_refine is not installed")
    done = subprocess.run(
        ["relion_refine", "--sym", group, "--print_symmetry_ops"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split() for line in done.stdout.splitlines() if re.fullmatch(r"\s*(-?[\d.e+-]+\s+){3}", line + " ")]
    printed = np.array(rows, dtype=float).reshape(-1, 3, 3)
    operators = symmetry.symmetry_operators(group)
    assert len(printed) == len(operators)
    # RELION prints five digits and computes some axes from single-precision constants.
    assert np.abs(printed[:, None] - operators).max(axis=(-2, -1)).min(axis=1).max() < 1e-5


def test_group_names_are_read_in_any_case_and_i_is_i2():
    assert symmetry.parse_group(" d7 ") == "D7"
    np.testing.assert_array_equal(symmetry.symmetry_operators("i"), symmetry.symmetry_operators("I2"))


@pytest.mark.parametrize("name", ["", "C0", "C", "X", "I9", "OH", "D-2", "4"])
def test_unknown_groups_are_refused_with_what_is_possible(name):
    with pytest.raises(InputError, match="Cn or Dn"):
        symmetry.symmetry_operators(name)


def test_changing_returned_operators_does_not_change_the_next_ones():
    symmetry.symmetry_operators("O")[0] = 0.0
    np.testing.assert_array_equal(symmetry.symmetry_operators("O")[0], np.eye(3))


def test_octahedral_operators_are_signed_permutations_exactly():
    assert symmetry.is_signed_permutation(symmetry.symmetry_operators("O")).all()
    assert symmetry.is_signed_permutation(symmetry.symmetry_operators("I2")).sum() == 12


@pytest.mark.parametrize("group", GROUPS)
def test_exactly_one_mate_of_a_direction_lies_in_the_asymmetric_unit(group, directions):
    mates = np.einsum("nj,gjk->ngk", directions[:500], symmetry.symmetry_operators(group))
    inside = symmetry.in_asymmetric_unit(mates, group)
    np.testing.assert_array_equal(inside.sum(axis=1), 1)


def test_octahedral_unit_is_x_below_y_below_z(directions):
    x, y, z = directions.T
    np.testing.assert_array_equal(symmetry.in_asymmetric_unit(directions, "O"), (np.abs(x) <= y) & (y <= z))


def test_borders_and_axes_belong_to_the_unit():
    axes = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 1], [-1, 1, 1]]) / np.sqrt([[1], [2], [3], [3]])
    assert symmetry.in_asymmetric_unit(axes, "O").all()


@pytest.mark.parametrize("group", ["C1", "C5", "D3", "T", "O", "I1", "I2", "I3", "I4"])
def test_all_equivalents_of_a_pose_are_reduced_to_the_same_one(group, rng):
    operators = symmetry.symmetry_operators(group)
    # Among them poses that look along symmetry axes, where the direction alone leaves the choice open.
    special = [euler_to_matrix(0, 0, 17), euler_to_matrix(0, 90, 40), euler_to_matrix(90, 90, -33)]
    poses = np.concatenate([random_rotations(rng, 100), special])
    reduced = symmetry.reduce_to_asymmetric_unit(poses, group)
    assert symmetry.in_asymmetric_unit(reduced[:, 2], group).all()
    np.testing.assert_allclose(angular_distance_deg(poses, reduced, operators), 0.0, atol=1e-6)
    for g in operators:
        np.testing.assert_allclose(symmetry.reduce_to_asymmetric_unit(poses @ g, group), reduced, atol=1e-9)


def test_cyclic_factors_of_a_group_multiply_to_every_operator_once():
    for group in ("C4", "D2", "D4", "O"):
        operators = symmetry.symmetry_operators(group)
        products = np.eye(3)[None]
        for factor in symmetry.exact_factors(operators):
            products = np.einsum("aij,bjk->abik", factor, products).reshape(-1, 3, 3)
        assert len(products) == len(np.unique(products, axis=0)) == len(operators)


def test_octahedral_average_takes_six_copies_and_not_twenty_three():
    assert sum(len(f) - 1 for f in symmetry.exact_factors(symmetry.symmetry_operators("O"))) == 6


@pytest.mark.parametrize("box", [24, 25])
def test_an_operator_moves_every_voxel_where_its_matrix_says(box, rng):
    volume = rng.standard_normal((box,) * 3).astype(np.float32)
    centre = box // 2
    points = rng.integers(-(centre - 1), centre, (50, 3))
    for g in symmetry.symmetry_operators("O"):
        moved = symmetry.apply_signed_permutation(volume, g)
        source = (points @ g.T).astype(int) + centre  # (x, y, z)
        here = points + centre
        np.testing.assert_array_equal(moved[tuple(here.T[::-1])], volume[tuple(source.T[::-1])])


@pytest.mark.parametrize("box", [24, 25])
@pytest.mark.parametrize("group", ["D2", "C4", "O"])
def test_exact_symmetrisation_is_the_mean_of_all_copies_and_is_symmetric(group, box, rng):
    volume = rng.standard_normal((box,) * 3).astype(np.float32)
    before = volume.copy()
    result = symmetry.symmetrise_volume(volume, group)
    np.testing.assert_array_equal(volume, before)
    operators = symmetry.symmetry_operators(group)
    mean = np.mean([symmetry.apply_signed_permutation(volume.astype(np.float64), g) for g in operators], axis=0)
    # Sums of 24 float32 values of order 1.
    np.testing.assert_allclose(result, mean, atol=1e-6)
    for g in operators:
        np.testing.assert_allclose(symmetry.apply_signed_permutation(result, g), result, atol=1e-6)


def _blobs(points, box=48, sigma=2.5):
    axis = np.arange(box) - box // 2
    volume = np.zeros((box,) * 3)
    for x, y, z in points:
        gx, gy, gz = (np.exp(-((axis - c) ** 2) / (2 * sigma**2)) for c in (x, y, z))
        volume += gz[:, None, None] * gy[None, :, None] * gx[None, None, :]
    return volume.astype(np.float32)


@pytest.mark.parametrize("group", ["C3", "D3", "T", "I1", "I3"])
def test_symmetrising_one_blob_gives_a_blob_at_every_mate(group):
    point = np.array([7.0, 5.0, 12.0])
    operators = symmetry.symmetry_operators(group)
    result = symmetry.symmetrise_volume(_blobs([point]), group) * len(operators)
    expected = _blobs(point @ operators)
    # Cubic splines of a Gaussian of 2.5 voxels err by 0.1 %.
    assert np.abs(result - expected).max() < 3e-3 * expected.max()


@pytest.mark.parametrize("group", ["C3", "T", "I2"])
def test_a_symmetric_map_stays_as_it_is(group):
    operators = symmetry.symmetry_operators(group)
    volume = _blobs(np.array([7.0, 5.0, 12.0]) @ operators)
    assert np.abs(symmetry.symmetrise_volume(volume, group) - volume).max() < 3e-3 * volume.max()
