"""Warp of frames with accumulation, against SciPy's splines."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.kernels import warp
from tests.kernels.reference import warp as reference

#: sums of 16 products of order 10 in float32
FLOAT32 = 2e-5


def field_of(rng, shape, spacing, size):
    nodes = (warp.node_count(length, spacing) for length in shape)
    return rng.uniform(-size, size, (2, *nodes)).astype(np.float32)


@pytest.mark.parametrize("shape", [(40, 53), (7, 33), (16, 2)])
def test_coefficients_are_those_of_scipy(fast, rng, shape):
    image = rng.standard_normal(shape).astype(np.float32)
    device = fast.array(image.copy())
    fast.kernel("warp.spline_coefficients")(device)
    np.testing.assert_allclose(fast.numpy(device), reference.spline_coefficients(image), atol=FLOAT32)


@pytest.mark.parametrize("spacing", [5, 16])
def test_a_warped_frame_is_added_to_every_sum_with_its_weight(fast, rng, spacing):
    shape = (44, 57)
    image = rng.standard_normal(shape).astype(np.float32)
    nodes = field_of(rng, shape, spacing, 6.0)
    sums = rng.standard_normal((3, *shape)).astype(np.float32)
    weights = np.array([0.5, -1.0, 2.0], dtype=np.float32)
    device, total = fast.array(image.copy()), fast.array(sums.copy())
    fast.kernel("warp.spline_coefficients")(device)
    fast.kernel("warp.warp_accumulate")(device, fast.array(nodes), spacing, fast.array(weights), total, fill=3.0)
    field = reference.dense(nodes, spacing, shape)
    y, x = np.indices(shape)
    # a position within rounding of the border may fall on either side of it
    u, v = x - field[0], y - field[1]
    clear = np.minimum.reduce([abs(u), abs(v), abs(u - shape[1] + 1), abs(v - shape[0] + 1)]) > 1e-4
    expected = sums + weights[:, None, None] * reference.warp(image, field, 3.0)
    # positions up to 57 px in float32: 4e-6 px times a slope of order 5
    np.testing.assert_allclose(fast.numpy(total)[:, clear], expected[:, clear], atol=1e-4)


def test_no_shift_gives_the_frame_itself(fast, rng):
    image = rng.standard_normal((33, 48)).astype(np.float32)
    device, total = fast.array(image.copy()), fast.array(np.zeros((1, 33, 48), np.float32))
    fast.kernel("warp.spline_coefficients")(device)
    nodes = fast.array(np.zeros((2, 4, 4), np.float32))
    fast.kernel("warp.warp_accumulate")(device, nodes, 16, fast.array(np.ones(1, np.float32)), total, fill=9.0)
    np.testing.assert_allclose(fast.numpy(total)[0], image, atol=FLOAT32)


def test_threads_do_not_change_a_bit(rng):
    image = rng.standard_normal((61, 47)).astype(np.float32)
    nodes = field_of(rng, image.shape, 16, 3.0)
    results = []
    for threads in (1, 2, 3):
        work, total = image.copy(), np.zeros((1, 61, 47), np.float32)
        warp.spline_coefficients(work, threads=threads)
        warp.warp_accumulate(work, nodes, 16, np.ones(1, np.float32), total, fill=0.0, threads=threads)
        results.append(total)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_arrays_of_a_wrong_kind_are_refused():
    image = np.zeros((20, 20), np.float32)
    nodes, one, sums = np.zeros((2, 3, 3), np.float32), np.ones(1, np.float32), np.zeros((1, 20, 20), np.float32)
    with pytest.raises(TypeError, match="float32"):
        warp.spline_coefficients(image.astype(np.float64))
    with pytest.raises(ValueError, match="2 x 2"):
        warp.spline_coefficients(image[:1])
    with pytest.raises(ValueError, match="C order"):
        warp.spline_coefficients(image.T[:, :10])
    with pytest.raises(ValueError, match="shifts"):
        warp.warp_accumulate(image, nodes[:, :2], 16, one, sums, fill=0.0)
    with pytest.raises(ValueError, match="spacing"):
        warp.warp_accumulate(image, nodes, 0, one, sums, fill=0.0)
