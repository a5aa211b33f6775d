from __future__ import annotations

import numpy as np

from cryopipe.projection.half_cube import cube_shape
from cryopipe.reconstruction.shells import shell_means, shell_numbers


def test_shell_means_are_those_of_their_formula() -> None:
    rng = np.random.default_rng(0)
    weight = rng.uniform(0, 2, cube_shape(9)).astype(np.float32)
    weight[weight < 0.2] = 0
    shell = shell_numbers(weight, slice(0, weight.shape[1]), 2)
    edge = weight.shape[2] - 1
    assert shell[edge, edge, 7] == 4  # |k| = 3.5 Fourier pixels: halves round up
    expected = [weight[shell == s].mean() for s in range(10)]
    np.testing.assert_allclose(shell_means(weight, 9, 2), expected, rtol=1e-5)
