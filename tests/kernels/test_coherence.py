"""Sum of moved spectra and the slope of its power, against NumPy and against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.kernels.coherence import coherent_sum, shift_gradients
from tests.kernels.reference import coherence as reference


def disc(side: int, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    ky, kx = np.fft.fftfreq(side), np.fft.rfftfreq(side)
    ky, kx = ky[np.abs(ky) <= radius], kx[kx <= radius]
    lengths = np.searchsorted(kx, np.sqrt(radius**2 - ky**2), side="right").astype(np.int64)
    return ky, kx, np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64), lengths


def scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    rows = disc(24, 0.4)
    size = int(rows[3].sum())
    values = (rng.standard_normal((5, size)) + 1j * rng.standard_normal((5, size))).astype(np.complex64)
    return values, rng.uniform(-3, 3, (5, 2)), rows


def test_the_sum_is_that_of_the_moved_spectra(rng):
    values, shifts, rows = scene(rng)
    # five float32 terms of order 1
    np.testing.assert_allclose(
        coherent_sum(values, shifts, *rows), reference.coherent_sum(values, shifts, *rows), atol=5e-6
    )


def test_rows_cut_short_leave_the_rest_at_zero(rng):
    values, shifts, (ky, kx, starts, lengths) = scene(rng)
    short = np.minimum(lengths, 3) * (np.abs(ky) < 0.2)
    total = coherent_sum(values, shifts, ky, kx, starts, short)
    full = coherent_sum(values, shifts, ky, kx, starts, lengths)
    used = reference.places(ky, kx, starts, lengths)[2] & False
    for start, length in zip(starts, short, strict=True):
        used[start : start + length] = True
    np.testing.assert_array_equal(total, np.where(used, full, 0))


def test_gradients_are_those_of_the_power(rng):
    values, shifts, rows = scene(rng)
    weights = rng.uniform(0, 1, values.shape[1]).astype(np.float32)
    total = coherent_sum(values, shifts, *rows)
    found = shift_gradients(values, total, weights, shifts, *rows)
    step = 1e-5
    for t, axis in np.ndindex(5, 2):
        there, back = shifts.copy(), shifts.copy()
        there[t, axis] += step
        back[t, axis] -= step
        slope = reference.power(values, weights, there, *rows) - reference.power(values, weights, back, *rows)
        # some 200 float32 terms of order 10, of a gradient of order 100
        assert found[t, axis] == pytest.approx(slope / (2 * step), abs=5e-3)


def test_spectra_of_one_specimen_have_their_maximum_where_they_agree(rng):
    values, shifts, rows = scene(rng)
    still = np.broadcast_to(values[0], values.shape)
    apart = reference.moved(still, -shifts, *rows).astype(np.complex64)
    total = coherent_sum(apart, shifts, *rows)
    np.testing.assert_allclose(total, 5 * values[0], atol=1e-5)
    weights = np.ones(values.shape[1], np.float32)
    gradients = shift_gradients(apart, total, weights, shifts, *rows)
    # zero but for float32; half a pixel away it is of order 1000
    np.testing.assert_allclose(gradients, 0, atol=0.05)


def test_arrays_of_a_wrong_kind_are_refused(rng):
    values, shifts, (ky, kx, starts, lengths) = scene(rng)
    with pytest.raises(TypeError, match="complex64"):
        coherent_sum(values.astype(np.complex128), shifts, ky, kx, starts, lengths)
    with pytest.raises(ValueError, match="shifts"):
        coherent_sum(values, shifts[:3], ky, kx, starts, lengths)
    with pytest.raises(ValueError, match="outside"):
        coherent_sum(values, shifts, ky, kx, starts, lengths + 1)
    with pytest.raises(TypeError, match="NumPy or a CuPy"):
        coherent_sum(values.tolist(), shifts, ky, kx, starts, lengths)
