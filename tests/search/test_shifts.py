"""Shift grids: which shifts they have, and how likely each is before an image is seen."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.errors import InputError
from cryopipe.search.shifts import shift_grid, shift_log_prior


@pytest.mark.parametrize(("reach", "step", "count"), [(3, 1, 29), (4, 2, 13), (0, 1, 1), (1.5, 0.5, 29)])
def test_shift_grids_fill_a_circle_nearest_first(reach: float, step: float, count: int) -> None:
    shifts = shift_grid(reach, step)
    assert len(shifts) == count
    distance = np.linalg.norm(shifts, axis=1)
    assert np.all(np.diff(distance) >= -1e-12)
    assert distance[0] == 0
    assert distance[-1] <= reach


def test_shift_prior_is_a_normalised_gaussian_of_the_total_shift() -> None:
    shifts = shift_grid(3, 1)
    prior = shift_log_prior(shifts, 1.5, base_shifts_px=np.array([[0.0, 0.0], [1.0, 0.0]]))
    np.testing.assert_allclose(np.exp(prior).sum(axis=1), 1, rtol=1e-5)
    there, centre = np.flatnonzero((shifts == [-1, 0]).all(1))[0], 0
    assert prior[1, there] - prior[1, centre] == pytest.approx(1 / (2 * 1.5**2), rel=1e-4)


@pytest.mark.parametrize(
    ("call", "text"),
    [(lambda: shift_grid(3, 0), "step 0"), (lambda: shift_log_prior(np.zeros((1, 2)), 0), "0 px")],
)
def test_impossible_shifts_are_refused_with_the_value(call: object, text: str) -> None:
    with pytest.raises(InputError, match=text):
        call()  # type: ignore[operator]
