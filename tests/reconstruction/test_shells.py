from __future__ import annotations

import numpy as np

from cryopipe.reconstruction.shells import shell_means, shell_numbers, wiener_factor
from cryopipe.search.half_cube import cube_shape


def test_shell_means_and_wiener_factors_are_those_of_their_formulas() -> None:
    rng = np.random.default_rng(0)
    weight = rng.uniform(0, 2, cube_shape(9)).astype(np.float32)
    weight[weight < 0.2] = 0
    shell = shell_numbers(weight, slice(0, weight.shape[1]), 2)
    edge = weight.shape[2] - 1
    assert shell[edge, edge, 7] == 4  # |k| = 3.5 Fourier pixels: halves round up
    expected = [weight[shell == s].mean() for s in range(10)]
    np.testing.assert_allclose(shell_means(weight, 9, 2), expected, rtol=1e-5)
    floor, regulariser = rng.uniform(0, 0.5, 10).astype(np.float32), rng.uniform(0, 1, 10).astype(np.float32)
    part = slice(3, 17)
    inside = shell[:, part] <= 9
    within = np.minimum(shell[:, part], 9)
    formula = np.where(inside, 1 / (np.maximum(weight[:, part], floor[within]) + regulariser[within]), 0)
    np.testing.assert_allclose(wiener_factor(weight, part, floor, regulariser, 2), formula, rtol=1e-6)


def test_a_voxel_without_weight_floor_and_prior_becomes_zero() -> None:
    weight = np.zeros(cube_shape(5), np.float32)
    factor = wiener_factor(weight, slice(0, 4), np.zeros(6, np.float32), np.zeros(6, np.float32), 2)
    assert not factor.any()
