"""The length of a run's schedule: jobs wait for what is before them and for cores."""

from __future__ import annotations

import pytest

from cryopipe.config.declaration.costs import JobCost
from cryopipe.workflow.costs.elapsed import elapsed_s


def jobs(*seconds: float) -> list[JobCost]:
    return [JobCost(0, value, value, 0, 0) for value in seconds]


@pytest.mark.parametrize(("cores", "seconds"), [(1, 40), (2, 20), (4, 10)])
def test_batches_of_a_step_share_the_cores(cores: int, seconds: float) -> None:
    assert elapsed_s({"screen_motion": jobs(10, 10, 10, 10)}, cores) == seconds


def test_a_batch_goes_on_while_another_is_behind() -> None:
    # the second batch is done with the first step after 1 s and need not wait for the first
    assert elapsed_s({"screen_motion": jobs(10, 1), "consensus_ctf/defocus": jobs(1, 10)}, 2) == 11


def test_a_step_with_one_job_waits_for_all_batches() -> None:
    assert elapsed_s({"screen_motion": jobs(10, 1), "select_classes_2d": jobs(5)}, 8) == 15


def test_branches_run_beside_one_another_and_what_joins_them_waits_for_all() -> None:
    branches = {"estimate_ctf_ctffind": jobs(4), "estimate_ctf_gctf": jobs(6)}
    assert elapsed_s({"screen_motion": jobs(1)} | branches | {"consensus_ctf/defocus": jobs(2)}, 16) == 1 + 6 + 2
    assert elapsed_s(branches, 4) == 10  # each takes four threads


def test_a_job_takes_no_more_cores_than_there_are() -> None:
    assert elapsed_s({"refine_homogeneous": jobs(7)}, 2) == 7
