"""The share of quarantined items is that of the run: of all finished batches that were made alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cryopipe.context import Context
from cryopipe.errors import CryopipeError
from cryopipe.io.star import write_rejections
from cryopipe.items import Rejection
from cryopipe.workflow.failures import failures_within_share
from cryopipe.workflow.provenance import write_provenance


def finish(
    folder: Path,
    batch: int,
    failed: Sequence[str],
    *,
    kind: str = "quarantined",
    total: int = 20,
    code: str = "c",
    **params: Any,
) -> None:
    """Do what a job of a batch does when its step is done: a fifth of the run may fail."""
    outputs = {"rejected": folder / f"batch_{batch:04d}_rejected.tsv"}
    params = {"paths": [f"b{batch}"], **params}
    context = Context("step", folder / "work" / f"batch_{batch:04d}", max_failed_fraction=0.2, items_in_run=total)
    context.work_dir.mkdir(parents=True, exist_ok=True)
    write_rejections(outputs["rejected"], [Rejection(item, kind, f"{item} is bad") for item in failed])
    with failures_within_share(outputs, params, context, code):
        write_provenance(inputs={}, outputs=outputs, params=params, context=context, code=code, seconds=1.0)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_the_batch_that_brings_the_run_above_the_share_stops_it_in_whatever_order_they_end(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    failed = {1: ["a", "b"], 2: ["c"], 3: ["d", "e"]}
    first, second, last = order
    finish(tmp_path, first, failed[first])
    finish(tmp_path, second, failed[second])
    with pytest.raises(
        CryopipeError, match=r"step: 5 of the 20 items of the run.*20%.*is bad.*run\.max_failed_fraction"
    ):
        finish(tmp_path, last, failed[last])
    assert not (tmp_path / f"batch_{last:04d}_rejected.tsv.provenance.json").exists()


def test_exactly_the_share_is_allowed(tmp_path: Path) -> None:
    finish(tmp_path, 1, ["a", "b"])
    finish(tmp_path, 2, ["c", "d"])


def test_what_is_judged_unfit_is_no_failure(tmp_path: Path) -> None:
    finish(tmp_path, 1, list("abcdefgh"), kind="rejected")


def test_batches_of_other_parameters_or_other_code_are_about_to_be_made_again_and_do_not_count(tmp_path: Path) -> None:
    finish(tmp_path, 1, list("abcd"), threshold=1)
    finish(tmp_path, 2, ["e"], threshold=2)
    finish(tmp_path, 3, ["f"], threshold=1, code="other")
    with pytest.raises(CryopipeError, match="5 of the 20 items"):
        finish(tmp_path, 4, ["g"], threshold=1)


def test_a_batch_whose_job_was_stopped_does_not_count(tmp_path: Path) -> None:
    finish(tmp_path, 1, list("abcd"))
    (tmp_path / "batch_0001_rejected.tsv.provenance.json").unlink()
    finish(tmp_path, 2, ["e"])


def test_particles_fail_with_their_micrograph_and_an_item_counts_once(tmp_path: Path) -> None:
    finish(tmp_path, 1, [f"{i:06d}@m{m}" for m in range(4) for i in range(50)])
    finish(tmp_path, 2, ["m3"])
    with pytest.raises(CryopipeError, match="5 of the 20 items"):
        finish(tmp_path, 3, ["000001@m9"])


def test_without_a_manifest_nothing_is_refused(tmp_path: Path) -> None:
    finish(tmp_path, 1, list("abcdefgh"), total=0)
    assert json.loads((tmp_path / "batch_0001_rejected.tsv.provenance.json").read_text())["code"] == "c"
