"""When seeds stop, which map goes on, and what is said of it; the numbers of a real contest are those of EMPIAR-10146."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.initial_volume.contest import goes_on, message, standing

#: held-out evidences of eight seeds on the ten micrographs; the first and third are right, the second and last on their way
EVIDENCE = np.array([42.19, 40.93, 42.25, 39.66, 39.66, 39.37, 39.73, 41.13])
#: agreement of each with the third
WITH_BEST = np.array([0.97, 0.73, np.nan, 0.22, 0.23, 0.06, 0.16, 0.73])


def test_two_seeds_with_the_same_map_end_the_contest_at_once() -> None:
    found = standing(EVIDENCE[:3], WITH_BEST[:3])
    assert (found.best, found.partner, found.verdict) == (2, 0, "agreed")
    assert not goes_on(found.verdict, 3, seeds=8, max_seeds=16)
    text, warn = message(found, 3, WITH_BEST[:3])
    assert not warn
    assert "seeds 3 and 1" in text


def test_two_seeds_in_the_same_trap_do_not_end_it_while_a_better_one_stands_alone() -> None:
    found = standing(np.array([39.66, 39.66, 42.25]), np.array([0.2, 0.2, np.nan]))
    assert (found.best, found.verdict) == (2, "none")
    assert goes_on(found.verdict, 3, seeds=8, max_seeds=16)


def test_a_seed_that_stands_out_suffices_after_the_seeds_asked_for_and_warns() -> None:
    evidence, with_best = EVIDENCE.copy(), np.where(WITH_BEST > 0.5, 0.3, WITH_BEST)
    evidence[0] = 39.5  # one seed fewer is right, and those on their way agree less
    found = standing(evidence, with_best)
    assert (found.best, found.verdict) == (2, "alone")
    assert goes_on(found.verdict, 7, seeds=8, max_seeds=16)
    assert not goes_on(found.verdict, 8, seeds=8, max_seeds=16)
    assert standing(evidence[2:], with_best[2:]).verdict == "none"  # too few to know their spread
    text, warn = message(found, 8, with_best)
    assert warn
    assert "clearly best" in text


@pytest.mark.parametrize("spread", [0.05, 0.3, 2.0])
def test_seeds_that_only_scatter_do_not_stand_out_and_more_are_tried_up_to_the_limit(spread: float) -> None:
    rng = np.random.default_rng(0)
    alone = [standing(40 + spread * rng.normal(size=8), np.full(8, 0.2)).verdict == "alone" for _ in range(400)]
    assert np.mean(alone) < 0.045  # 2 % are expected, 400 draws scatter by 0.7 %
    found = standing(np.array([39.4, 39.66, 39.7, 39.73, 39.5, 39.6]), np.full(6, 0.2))
    assert found.verdict == "none"
    assert goes_on(found.verdict, 8, seeds=8, max_seeds=16)
    assert not goes_on(found.verdict, 16, seeds=8, max_seeds=16)
    text, warn = message(found, 6, np.full(6, 0.2))
    assert warn
    assert "probably wrong" in text


def test_a_single_seed_is_said_to_be_one() -> None:
    found = standing(np.array([42.0]), np.array([np.nan]))
    assert not goes_on(found.verdict, 1, seeds=1, max_seeds=1)
    text, warn = message(found, 1, np.array([np.nan]))
    assert warn
    assert "single seed" in text
