"""The share of items that a step may quarantine, counted over all batches of the run.

A batch knows its own failures only. So each batch, when it is done, adds up the failures of all finished batches, under a
lock. In this way the last one sees all, in whatever order they end. A batch that exceeds the share fails, Snakemake removes
its outputs, and no step that joins the batches starts.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryopipe.context import Context
from cryopipe.errors import CryopipeError
from cryopipe.io.star import RejectionRow, read_rejections
from cryopipe.items import failure_message

#: Parameters that differ between the batches of one run.
BATCH_KEYS = frozenset({"paths", "sizes", "checksums"})


@contextmanager
def failures_within_share(
    outputs: Mapping[str, Path], params: Mapping[str, Any], context: Context, code: str
) -> Iterator[None]:
    """Stop the run if this batch brings the quarantined items of all finished batches above the allowed share.

    The caller writes the provenance of the outputs inside the block. With it the batch counts as finished.

    Parameters
    ----------
    outputs : mapping
        Files of the step. A step that does not work in batches, or has no ``rejected``, is not checked.
    params, code
        Parameters and code of this job. A batch that other parameters or other code made will be made again, so it does
        not count.
    context : Context
        The share refers to its ``items_in_run``. If that is 0, nothing is refused.

    Raises
    ------
    CryopipeError
        Too many items failed. The message has their number and the first reasons.
    """
    table = outputs.get("rejected")
    if table is None or not re.fullmatch(r"batch_\d+_rejected\.tsv", table.name) or not context.items_in_run:
        yield
        return
    with (context.work_dir.parent / "failures.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        failed = {row.item: row for row in _quarantined(table)}
        for other in sorted(table.parent.glob("batch_*_rejected.tsv")):
            if other != table and (rows := _quarantined(other)) and _same_making(other, params, code):
                failed |= {row.item: row for row in rows}
        if len(failed) > context.max_failed_fraction * context.items_in_run:
            whole = f"the {context.items_in_run} items of the run (all batches together)"
            raise CryopipeError(failure_message(context, list(failed.values()), whole))
        yield


def _quarantined(table: Path) -> list[RejectionRow]:
    """Return one row per failed item. Particles (``number@item``) fail with their micrograph."""
    rows = {row.item.split("@")[-1]: row for row in read_rejections(table) if row.kind == "quarantined"}
    return [row._replace(item=item) for item, row in rows.items()]


def _same_making(table: Path, params: Mapping[str, Any], code: str) -> bool:
    try:
        record = json.loads(table.with_name(table.name + ".provenance.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return bool(record["code"] == code and _common(record["params"]) == _common(params))


def _common(params: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in params.items() if key not in BATCH_KEYS}
