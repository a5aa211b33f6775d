"""The way between accumulators and map: what may be left out and what threads may not change."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.projection import half_cube as transform


@pytest.fixture
def cube() -> np.ndarray:
    return transform.half_cube(np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32), 15)


def test_columns_beyond_the_reach_are_left_out_without_changing_the_map(cube: np.ndarray) -> None:
    edge = cube.shape[2] - 1
    k = np.arange(-edge, edge + 1)
    far = k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, edge:] ** 2
    for reach in (0.0, 3.0, 17.3, 31.0, 90.0):
        within = np.where(far <= reach**2, cube, 0).astype(np.complex64)
        whole = transform.volume_from_half_cube(within, 32)
        # other columns stand beside a transform in the vector unit: rounding, 1e-6 of the largest
        np.testing.assert_allclose(
            transform.volume_from_half_cube(within, 32, reach=reach), whole, atol=1e-6 * np.abs(whole).max()
        )


def test_gridding_on_the_way_is_the_correction_afterwards(cube: np.ndarray) -> None:
    found = transform.volume_from_half_cube(cube, 32, profile=transform.gridding_profile(32))
    np.testing.assert_allclose(found, transform.correct_gridding(transform.volume_from_half_cube(cube, 32)), rtol=1e-6)


def test_threads_change_no_bit_of_either_transform(cube: np.ndarray) -> None:
    maps = [
        transform.volume_from_half_cube(cube, 32, threads=t, reach=30.0, profile=transform.gridding_profile(32))
        for t in (1, 2)
    ]
    np.testing.assert_array_equal(maps[0], maps[1])
    cubes = [transform.half_cube(maps[0], 15, threads=t) for t in (1, 2)]
    np.testing.assert_array_equal(cubes[0], cubes[1])
