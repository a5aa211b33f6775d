"""A run of the CTF consensus: judge each micrograph, and combine the estimates of the accepted ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryopipe.config.ctf import ConsensusCtf
from cryopipe.context import Context
from cryopipe.ctf.consensus.branches import Branch, item_of, read_branches
from cryopipe.ctf.consensus.combine import combined_rows
from cryopipe.ctf.consensus.verdict import judge
from cryopipe.errors import InputError
from cryopipe.io.star import StarTable, read_table, write_rejections, write_table
from cryopipe.items import Rejection


def consensus(
    items: Sequence[str], branches: Sequence[Branch], params: ConsensusCtf, *, prefix: str
) -> tuple[StarTable, list[Rejection]]:
    """Return the accepted micrographs and the rejections. Together they have each of ``items`` once, in this order.

    Parameters
    ----------
    items : sequence of str
        Micrographs to judge, each once. Other micrographs of a branch are ignored, because an earlier step rejected them.
    branches : sequence of Branch
        Tables of estimates and their failures. A table may be empty, and there may be a single branch.
    params : ConsensusCtf
        Criteria.
    prefix : str
        Prefix of the columns that this pass adds (`combine`).

    Raises
    ------
    InputError
        An item occurs twice, or a branch has no CTF columns.
    """
    if len(set(items)) < len(items):
        twice = next(item for i, item in enumerate(items) if item in items[:i])
        raise InputError(f"micrograph {twice} occurs twice in the table of micrographs. Give each a name of its own.")
    verdicts = {item: judge(item, branches, params) for item in items}
    rejections = [
        # if no estimator could process it, this is not a judgement of its CTF
        Rejection(item, "rejected" if verdict.estimates else "quarantined", "; ".join(verdict.reasons))
        for item, verdict in verdicts.items()
        if verdict.reasons
    ]
    accepted = {item: verdict for item, verdict in verdicts.items() if not verdict.reasons}
    return branches[0].table.with_rows(combined_rows(accepted, branches, params, prefix)), rejections


def run_pass(
    inputs: dict[str, Any], outputs: dict[str, Path], params: ConsensusCtf, context: Context, *, prefix: str
) -> None:
    """Do one pass on a batch.

    Parameters
    ----------
    inputs : dict
        ``micrographs``: table of the micrographs to judge. ``branches``: one table of estimates for each of
        ``params.branches``. ``failures``: their lists of rejections.
    outputs : dict of Path
        ``micrographs``: the accepted ones. ``rejected``: list of the others.
    params : ConsensusCtf
        Criteria.
    context : Context
        Log of the job.
    prefix : str
        Prefix of the columns that this pass adds (`combine`).
    """
    tables, failures = (
        value if isinstance(value, list) else [value] for value in (inputs["branches"], inputs["failures"])
    )
    entering = read_table(inputs["micrographs"], "micrographs").rows.to_dict("records")
    branches = read_branches(params.branches, tables, failures)
    accepted, rejections = consensus([item_of(row) for row in entering], branches, params, prefix=prefix)
    write_table(outputs["micrographs"], accepted)
    write_rejections(outputs["rejected"], rejections)
    context.log.info("%s: %d accepted, %d rejected", context.step, len(accepted), len(rejections))
