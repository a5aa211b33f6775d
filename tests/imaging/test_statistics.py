from __future__ import annotations

import numpy as np
import pytest

from cryopipe.imaging.statistics import robust_sd


def test_the_robust_sd_of_normal_data_is_their_sd(rng):
    # relative standard error of the median absolute deviation of 40,000 values: 1.17 / sqrt(2 n) = 0.6 %; five of them
    assert robust_sd(rng.normal(-3.0, 0.5, 40000)) == pytest.approx(0.5, rel=0.03)


def test_a_fifth_of_outliers_widens_the_robust_sd_by_a_third_at_most(rng):
    values = rng.normal(10.0, 2.0, 20000)
    values[:4000] = 1e6
    # the deviation that three eighths, in place of a half, of the good values lie within is 1.32 times the usual one
    assert 2.0 < robust_sd(values) < 2.0 * 1.5


def test_deviations_are_measured_from_the_centre_that_is_given():
    assert robust_sd(np.array([1.0, 2.0, 3.0]), 0.0) == 1.4826 * 2.0
    assert robust_sd(np.array([1.0, 2.0, 3.0])) == 1.4826


def test_float32_values_keep_their_precision():
    values = np.array([0.1, 0.7, 0.30000001], np.float32)
    assert robust_sd(values) == 1.4826 * float(np.median(np.abs(values - np.median(values))))
