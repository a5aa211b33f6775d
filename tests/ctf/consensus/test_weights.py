"""Weights of correlated estimates, and what a batch tells about its estimators, against planted truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cryopipe.ctf.consensus.calibration import Calibration, calibrate
from cryopipe.ctf.consensus.weights import Member, best_weights, combine
from cryopipe.ctf.defocus import Defocus

NAMES = ("ctffind", "gctf", "xmipp")


def batch(
    seed: int,
    count: int,
    errors: tuple[float, float, float],
    *,
    correlation: float = 0.5,
    offsets: tuple[float, float, float] = (0.0, 0.0, 0.0),
    understated: float = 1.0,
) -> tuple[list[dict[str, Member]], np.ndarray]:
    """Return estimates of ``count`` micrographs with planted errors, known to 16 %, and the true mean defoci."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(5e3, 16e3, count)
    covariance = np.where(np.eye(3) > 0, 1.0, correlation)
    made = []
    for z in truth:
        noise = rng.multivariate_normal(np.zeros(3), covariance, size=3) * errors  # [z, a, b; estimator]
        stated = np.array(errors) / understated * np.exp(0.16 * rng.standard_normal(3))
        made.append(
            {
                name: Member(
                    Defocus(float(z + noise[0, i] + offsets[i]), float(noise[1, i]), float(noise[2, i])),
                    float(stated[i]),
                    float(stated[i]),
                )
                for i, name in enumerate(NAMES)
            }
        )
    return made, truth


def deviations(made: list[dict[str, Member]], truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return error over truth and stated error of the consensus."""
    c = calibrate(made)
    found = [combine({n: c.apply(n, m) for n, m in ms.items()}, c.correlations, c.common_A) for ms in made]
    return np.array([f.defocus.mean_A for f in found]) - truth, np.array([f.error.mean_A for f in found])


def test_the_weights_are_the_best_of_all_for_two_correlated_estimates() -> None:
    errors, correlation = np.array([10.0, 14.0]), 0.5
    weights, sd = best_weights(errors, correlation)
    covariance = np.array([[100.0, 70.0], [70.0, 196.0]])
    tried = np.linspace(0, 1, 1001)
    variances = [w @ covariance @ w for w in np.stack([tried, 1 - tried], axis=1)]
    assert weights[0] == pytest.approx(tried[int(np.argmin(variances))], abs=1e-3)
    assert sd**2 == pytest.approx(min(variances), rel=1e-4)
    assert sd < 10.0  # better than the better of the two


def test_an_estimate_that_only_repeats_a_better_one_has_no_weight() -> None:
    """Of 10 and 30 Å with a correlation of 0.5, Aitken's weight of the second is negative."""
    weights, sd = best_weights(np.array([10.0, 30.0]), 0.5)
    assert weights.tolist() == [1.0, 0.0]
    assert sd == 10.0


@pytest.mark.parametrize("errors", [(20.0, 20.0, 20.0), (12.0, 20.0, 16.0), (40.0, 12.0, 15.0)])
def test_the_consensus_beats_its_best_member_and_its_error_is_right(errors: tuple[float, float, float]) -> None:
    off, stated = (np.concatenate(x) for x in zip(*(deviations(*batch(s, 12, errors)) for s in range(25)), strict=True))
    rms = float(np.sqrt((off**2).mean()))
    assert rms < 0.97 * min(errors)
    plain = np.array(errors)
    covariance = np.outer(plain, plain) * np.where(np.eye(3) > 0, 1.0, 0.5)
    best = float(np.linalg.inv(covariance).sum() ** -0.5)
    assert rms < 1.12 * best  # what the batch has to learn costs little
    assert np.sqrt(((off / stated) ** 2).mean()) == pytest.approx(1.0, abs=0.15)


def test_an_offset_of_one_estimator_is_learned_and_stated() -> None:
    """Three estimators with an offset of one: their mean keeps a third of it, which the stated error has to hold."""
    errors = (15.0, 15.0, 15.0)
    made, truth = batch(3, 40, errors, offsets=(90.0, 0.0, 0.0))
    c = calibrate(made)
    assert c.offsets["ctffind"][0] == pytest.approx(60.0, abs=12.0)
    assert c.offsets["gctf"][0] == pytest.approx(-30.0, abs=12.0)
    off, stated = deviations(made, truth)
    assert off.std() < 15.0  # micrographs no longer scatter by their weights
    assert np.sqrt(((off / stated) ** 2).mean()) < 1.5
    clean = calibrate(batch(3, 40, errors)[0])
    assert abs(clean.offsets["ctffind"][0]) < 5.0  # nothing is learned from noise


def test_errors_that_are_stated_too_small_are_scaled_up() -> None:
    made, truth = batch(4, 60, (30.0, 30.0, 30.0), understated=3.0)
    assert calibrate(made).scales[0] > 1.5
    off, stated = deviations(made, truth)
    assert np.sqrt(((off / stated) ** 2).mean()) < 1.9  # 2.9 without the scale
    assert calibrate(batch(4, 60, (30.0, 30.0, 30.0))[0]).scales[0] < 1.1


def test_one_micrograph_alone_gets_the_values_of_the_simulation() -> None:
    made, _ = batch(5, 1, (20.0, 20.0, 20.0))
    c = calibrate(made)
    assert c.offsets == {}
    assert c.correlations[0] == pytest.approx(Calibration().correlations[0], abs=0.15)
    assert c.apply("gctf", made[0]["gctf"]).mean_error_A == pytest.approx(made[0]["gctf"].mean_error_A, rel=0.1)
    assert calibrate([]) == Calibration()


def test_one_in_a_wrong_ring_of_its_own_is_out_voted_and_named() -> None:
    made, truth = batch(6, 12, (20.0, 20.0, 20.0))
    wrong = made[4]["gctf"]
    made[4]["gctf"] = Member(Defocus(wrong.defocus.mean_A + 500.0), 5.0, 5.0)  # and sure of itself
    c = calibrate(made)
    found = combine({n: c.apply(n, m) for n, m in made[4].items()}, c.correlations, c.common_A)
    assert found.out_voted == ("gctf",)
    assert found.weights["gctf"] == 0.0
    assert abs(found.defocus.mean_A - truth[4]) < 60.0
    two = combine({n: made[4][n] for n in ("ctffind", "gctf")}, (0.5, 0.5))
    assert two.out_voted == ()  # nobody knows which of two is wrong


def test_neither_the_order_of_members_nor_that_of_micrographs_changes_a_bit() -> None:
    made, _ = batch(7, 9, (20.0, 30.0, 25.0))
    reference = calibrate(made)
    for order in itertools.islice(itertools.permutations(made), 0, 4000, 800):
        assert calibrate([dict(reversed(list(ms.items()))) for ms in order]) == reference
    members = {n: reference.apply(n, m) for n, m in made[0].items()}
    expected = combine(members, reference.correlations)
    for names in itertools.permutations(NAMES):
        assert combine({n: members[n] for n in names}, reference.correlations) == expected
