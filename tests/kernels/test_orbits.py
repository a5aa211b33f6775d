"""Point groups on half cubes, against their definition on the full cube."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.kernels import orbits
from cryopipe.kernels._dispatch import cpu_threads
from tests.kernels import scenes

#: float32 sums of at most 24 values near 1, rounded once from float64: 24 x 6e-8 x 5 (the largest of the values)
ORBIT = 1e-5
#: float32 rounding of 8 products and of coordinates up to 8 voxels, as for slices
FLOAT32 = 2e-5


def cubes(rng, radius=8):
    numerator = scenes.noise_cube(rng, radius)
    weight = rng.random(numerator.shape).astype(np.float32)
    weight[:, :, 0] = (weight[:, :, 0] + weight[::-1, ::-1, 0]) / 2
    return numerator, weight


def group(name):
    return np.rint(symmetry_operators(name)).astype(np.int64)


def summed(on, numerator, weight, operators, **options):
    pair = on.array(numerator.copy()), on.array(weight.copy())
    on.kernel("orbits.sum_over_orbits")(*pair, operators, **options)
    return on.numpy(pair[0]), on.numpy(pair[1])


@pytest.mark.parametrize("name", ["C1", "C2", "C4", "D2", "D4", "O"])
def test_orbit_sums_are_those_of_the_full_cube(fast, rng, name):
    numerator, weight = cubes(rng)
    found, found_weight = summed(fast, numerator, weight, group(name))
    expected, expected_weight = numerator.astype(complex), weight.astype(float)
    from tests.kernels.reference.orbits import sum_over_orbits

    sum_over_orbits(expected, expected_weight, group(name))
    assert np.abs(found - expected).max() < ORBIT
    assert np.abs(found_weight - expected_weight).max() < ORBIT


@pytest.mark.parametrize("name", ["D2", "O"])
def test_an_orbit_holds_one_value_and_the_cube_stays_hermitian_to_the_bit(fast, rng, name):
    found, found_weight = summed(fast, *cubes(rng), group(name))
    plane = found[:, :, 0]
    np.testing.assert_array_equal(plane, np.conj(plane[::-1, ::-1]))
    np.testing.assert_array_equal(found_weight[:, :, 0], found_weight[::-1, ::-1, 0])
    # the 2-fold axis on z: (x, y, z) -> (-x, -y, z), of which the mate (x, y, -z) is stored
    np.testing.assert_array_equal(found, np.conj(found[::-1]))
    np.testing.assert_array_equal(found_weight, found_weight[::-1])


def test_voxels_beyond_the_reach_are_left_alone(on, rng):
    numerator, weight = cubes(rng)
    whole, _ = summed(on, numerator, weight, group("O"))
    found, found_weight = summed(on, numerator, weight, group("O"), reach=5.0)
    k = np.arange(-8, 9)
    outside = k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, 8:] ** 2 > 25
    np.testing.assert_array_equal(found[outside], numerator[outside])
    np.testing.assert_array_equal(found_weight[outside], weight[outside])
    np.testing.assert_array_equal(found[~outside], whole[~outside])


def rotated(on, numerator, weight, operators, **options):
    total, total_weight = on.array(np.zeros_like(numerator)), on.array(np.zeros_like(weight))
    moved = on.array(numerator), on.array(weight), on.array(operators)
    on.kernel("orbits.add_rotated")(*moved, total, total_weight, **options)
    return on.numpy(total), on.numpy(total_weight)


@pytest.mark.parametrize("options", [{}, {"reach": 5.5}])
def test_rotated_copies_are_the_interpolation_written_out_on_the_full_cube(fast, rng, options):
    numerator, weight = cubes(rng)
    operators = scenes.rotations(4)[1:]
    found, found_weight = rotated(fast, numerator, weight, operators, **options)
    expected, expected_weight = np.zeros(numerator.shape, complex), np.zeros(weight.shape)
    from tests.kernels.reference.orbits import add_rotated

    add_rotated(numerator, weight, operators, expected, expected_weight, **options)
    assert np.abs(found - expected).max() < FLOAT32
    assert np.abs(found_weight - expected_weight).max() < FLOAT32


def test_a_rotation_that_permutes_axes_interpolates_nothing(on, rng):
    numerator, weight = cubes(rng)
    operator = group("O")[5].astype(np.float32)
    found, _ = rotated(on, numerator, weight, operator[None])
    exact = np.zeros_like(numerator)
    from tests.kernels.reference.slices import full_cube

    full = full_cube(numerator)
    for z, y, x in np.argwhere(found != 0):
        exact[z, y, x] = full[tuple(8 + (np.rint(operator).astype(int) @ (x, y - 8, z - 8))[::-1])]
    np.testing.assert_array_equal(found, exact)


def test_threads_change_no_bit(rng):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only: NUMBA_NUM_THREADS is 1")
    numerator, weight = cubes(rng, 20)
    results = []
    for threads in (1, 2):
        with cpu_threads(threads):
            pair = numerator.copy(), weight.copy()
            orbits.sum_over_orbits(*pair, group("D4"))
            total = np.zeros_like(numerator), np.zeros_like(weight)
            orbits.add_rotated(*pair, scenes.rotations(3), *total)
        results.append([a.tobytes() for a in (*pair, *total)])
    assert results[0] == results[1]


def test_what_is_no_group_of_axis_permutations_is_refused(rng):
    numerator, weight = cubes(rng)
    for bad in (group("O")[:5], symmetry_operators("C3"), -group("C2"), np.concatenate([group("C2")] * 2)):
        with pytest.raises(ValueError, match="operators must be"):
            orbits.sum_over_orbits(numerator, weight, bad)
    with pytest.raises(ValueError, match="must not be the rotated cube"):
        orbits.add_rotated(numerator, weight, scenes.rotations(1), numerator, weight)
    with pytest.raises(ValueError, match="weight has shape"):
        orbits.sum_over_orbits(numerator, np.zeros((3, 3, 2), np.float32), group("C2"))
    with pytest.raises(ValueError, match="not rotation matrices"):
        orbits.add_rotated(numerator, weight, 2 * scenes.rotations(1), numerator.copy(), weight.copy())
