"""Ring sums and equiphase averages, against loops and against what they are for."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.kernels import rings
from cryopipe.kernels._dispatch import cpu_threads
from tests.kernels.reference import rings as reference

#: float64 sums of float32 values in another order: 1e-15 times the square root of the count, with room
FLOAT64 = 1e-12


@pytest.fixture
def pixels(rng):
    """Enough pixels for three chunks of work, some of them outside the rings."""
    count = 20_000
    ring = rng.integers(-2, 14, count).astype(np.int32)
    return rng.standard_normal((3, count)).astype(np.float32), ring


def test_ring_sums_agree_with_a_loop_over_pixels(fast, pixels):
    values, ring = pixels
    np.testing.assert_allclose(
        fast.call("rings.ring_sums", values, ring, 12),
        reference.ring_sums(values, ring, 12),
        rtol=0,
        atol=1e4 * FLOAT64,
    )
    one = fast.call("rings.ring_sums", values[0], ring, 12)
    assert one.shape == (12,)


def test_more_rings_than_shared_memory_holds_are_summed_all_the_same(fast, rng):
    ring = rng.integers(0, 7000, 9000).astype(np.int32)
    values = rng.standard_normal((1, 9000)).astype(np.float32)
    expected = np.bincount(ring, weights=values[0].astype(float), minlength=7000)
    np.testing.assert_allclose(fast.call("rings.ring_sums", values, ring, 7000)[0], expected, atol=FLOAT64)


def test_the_mean_of_a_radial_function_is_that_function_and_empty_rings_give_zero(on):
    y, x = np.mgrid[-20:21, -20:21]
    ring = np.rint(np.hypot(x, y)).astype(np.int32).ravel()
    values = np.cos(0.3 * ring).astype(np.float32)
    mean = on.call("rings.ring_means", values, ring, 40)
    np.testing.assert_allclose(mean[:29], np.cos(0.3 * np.arange(29)), atol=1e-7)  # float32 values
    assert not mean[29:].any()


def test_equiphase_averages_agree_with_triangular_shares_written_out(fast, rng):
    values = rng.standard_normal((2, 300)).astype(np.float32)
    for position in (rng.uniform(-1, 11, 300), rng.uniform(-1, 11, (2, 300))):
        got = fast.call("rings.equiphase_average", values, position.astype(np.float32), 10)
        expected = reference.equiphase_average(values, position.astype(np.float32), 10)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=FLOAT64)


def test_an_equiphase_average_keeps_the_thon_rings_that_a_radial_average_smears(on):
    """Half an astigmatism a multiplies the rings of a radial average by J0(2 pi lambda k^2 a): 0 at 6.2 Å for 750 Å."""
    size, pixel, n_rings = 256, 1.4, 120
    wavelength, mean, half = 0.0197, 12_000.0, 750.0
    ky, kx = (a.ravel() for a in np.mgrid[-size // 2 : size // 2, 0 : size // 2] / (size * pixel))
    k2 = kx**2 + ky**2
    band = (k2 > (1 / 8) ** 2) & (k2 < (1 / 5) ** 2)
    kx, ky, k2 = kx[band], ky[band], k2[band]
    chi = np.pi * wavelength * k2 * (mean + half * np.cos(2 * np.arctan2(ky, kx)))
    values = np.abs(np.sin(chi)).astype(np.float32)
    # the ring where a spectrum without astigmatism has the same phase
    position = (np.sqrt(chi / (np.pi * wavelength * mean)) * size * pixel).astype(np.float32)
    equiphase, _ = on.call("rings.equiphase_average", values, position, n_rings)
    ring = np.rint(np.sqrt(k2) * size * pixel).astype(np.int32)
    radial = on.call("rings.ring_means", values, ring, n_rings)
    near = np.abs(np.arange(n_rings) - size * pixel / 6.2) < 4  # one and a half Thon rings
    assert np.ptp(equiphase[near]) > 0.7  # of 1; 3.9 pixels a ring and linear shares leave 0.8
    assert np.ptp(equiphase[near]) > 3 * np.ptp(radial[near])


def test_ring_sums_are_bit_identical_whatever_the_number_of_threads(pixels):
    values, ring = pixels
    results = []
    for threads in (1, 2):
        with cpu_threads(threads):
            results.append(rings.ring_sums(values, ring, 12).tobytes())
    assert results[0] == results[1]


def test_positions_that_are_nan_are_left_out(fast):
    values, position = np.ones(3, np.float32), np.array([0, np.nan, 1], np.float32)
    mean, weight = fast.call("rings.equiphase_average", values, position, 2)
    np.testing.assert_array_equal(mean, [1, 1])
    np.testing.assert_array_equal(weight, [1, 1])


def test_bad_inputs_are_refused(pixels):
    values, ring = pixels
    with pytest.raises(TypeError, match="values must be float32, not float64"):
        rings.ring_sums(values.astype(float), ring, 3)
    with pytest.raises(TypeError, match="ring must be integer"):
        rings.ring_sums(values, ring.astype(float), 3)
    with pytest.raises(ValueError, match="ring must have shape"):
        rings.ring_sums(values, ring[1:], 3)
    with pytest.raises(ValueError, match="n_rings must be at least 1"):
        rings.ring_sums(values, ring, 0)
