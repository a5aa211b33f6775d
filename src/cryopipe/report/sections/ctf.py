"""CTFs of all micrographs: tables by criterion, plots, agreement of the estimators, and micrographs to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryopipe.config.ctf import ConsensusCtf
from cryopipe.ctf.consensus.branches import item_of
from cryopipe.io.star import concatenate, read_table
from cryopipe.report.drawing import plots
from cryopipe.report.drawing.cards import Card, ctf_links, ctf_pictures
from cryopipe.report.drawing.tables import (
    Column,
    Table,
    make_table,
    numbers_of,
    numeric,
    summary,
    summary_rows,
    worst_and_sample,
)
from cryopipe.report.parts.ctf_agreement import PairComparison, agreement_part, compare, warnings
from cryopipe.report.parts.ctf_columns import QUALITY, RESULT, SOURCES, each_estimator, is_pair, other_columns
from cryopipe.report.parts.ctf_members import member_numbers, member_rows, member_warnings
from cryopipe.report.reads import ENTERING, ESTIMATES, MICROGRAPHS, REJECTED
from cryopipe.report.run_files import RunFiles
from cryopipe.report.section import Part, Section
from cryopipe.steps import step_of

#: Resolution limit in Å for the agreement if the consensus uses the measure of xmipp, which has another scale than phases.
_DEFAULT_LIMIT_A = 5.0


def build(run: RunFiles) -> Part:
    """Return tables, plots and pictures of the CTFs and, with two estimators or more, of their agreement."""
    consensus = run.params_of("consensus_ctf", ConsensusCtf)
    estimates = estimator_tables(run)
    pairs = compare(estimates)
    frame = with_agreement(ctf_table(run, estimates), pairs, consensus.estimators)
    # with one estimator these columns repeat the result
    each = each_estimator(estimates) if len(estimates) > 1 else []
    columns = [*RESULT, *QUALITY, *each, *other_columns(frame)]
    accepted = frame[frame["status"] == "accepted"]
    numbers: dict[str, Any] = {
        "ctf": {"micrographs": len(frame), "summary": summary(frame, columns), "table": numbers_of(frame, columns)}
    }
    judged = [c for c in columns if c.key in accepted and c.worst]
    shown = worst_and_sample(accepted, judged, run.params.max_pictures)
    items = [(str(accepted.index[position]), why) for position, why in shown]
    steps = list(run.by_step(ESTIMATES.name))
    page: dict[str, Any] = {
        "ctf": {
            "plots": _plots(frame, consensus),
            "tables": _tables(frame, each, run, steps),
            "summary": summary_rows(frame, RESULT),
            "quality": summary_rows(frame, QUALITY),
            "cards": [Card(item, why, ctf_pictures(run.folder, item, steps)) for item, why in items],
            "of": len(accepted),
            "failures": [loss for loss in run.losses if loss.step in steps],
        },
        "agreement": None,
    }
    found: list[str] = []
    if len(estimates) > 1:
        own = consensus.max_agreement_A if consensus.agreement != "legacy_linear" else None
        numbers["agreement"], page["agreement"] = agreement_part(
            estimates, pairs, {str(item) for item in accepted.index}, own or _DEFAULT_LIMIT_A
        )
        members = member_numbers(accepted, list(estimates))
        numbers["agreement"]["members"], page["agreement"]["members"] = members, member_rows(members)
        found = [*warnings(numbers["agreement"]), *member_warnings(members)]
    return Part(numbers=numbers, page=page, warnings=found)


def estimator_tables(run: RunFiles) -> dict[str, pd.DataFrame]:
    """Return ``{estimator: its rows joined with their optics; the index is the item}``, in the order of the inputs."""
    return {step_of(name).label: _by_item(paths) for name, paths in run.by_step(ESTIMATES.name).items()}


def ctf_table(run: RunFiles, estimates: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one row for each micrograph that entered the stage.

    Accepted ones have the columns of the table that goes on. The others have what the estimators found.
    """
    entering = run.table(ENTERING.name, "micrographs").rows
    items = [item_of(row) for row in entering.to_dict("records")]
    frame = _by_item(run.paths(MICROGRAPHS.name))
    for name, table in estimates.items():
        own = {source: f"crpCtf{name.title()}{what}" for what, source in SOURCES.items() if source in table}
        # a row that goes on has these already; a rejected one gets them from the table of the estimator
        frame = frame.combine_first(table[list(own)].rename(columns=own))
    for table in estimates.values():
        frame = frame.combine_first(table)
    lost = {
        loss.item: loss.kind
        for loss in run.losses
        if step_of(loss.step).stage == "ctf" and loss.step not in run.side_branches
    }
    frame = frame.reindex(items)
    frame = frame.assign(status=[lost.get(item, "accepted") for item in items])
    return numeric(frame, [*RESULT, *QUALITY, *each_estimator(estimates), *other_columns(frame)])


def with_agreement(frame: pd.DataFrame, pairs: Sequence[PairComparison], judged: Sequence[str]) -> pd.DataFrame:
    """Return ``frame`` with the agreement of all pairs, also for micrographs that the consensus rejected.

    If the consensus has no agreement for an item, it is that of the worst pair of the ``judged`` estimators.
    """
    new = {}
    for pair in pairs:
        values = pd.Series(pair.crossing_A, index=pd.Index(pair.items, dtype=object)).reindex(frame.index)
        new[pair.column] = values if pair.column not in frame else frame[pair.column].fillna(values)
    inside = [pair.column for pair in pairs if set(pair.names) <= set(judged)]
    if inside:
        worst = pd.DataFrame({name: new[name] for name in inside}).max(axis=1)
        name = "crpCtfConsensusCrossing"
        new[name] = frame[name].fillna(worst) if name in frame else worst
    return frame.assign(**new)


def _tables(frame: pd.DataFrame, each: Sequence[Column], run: RunFiles, steps: Sequence[str]) -> list[Table]:
    links = ctf_links(run.folder, steps[0], [str(i) for i in frame.index]) if steps else {}
    others = other_columns(frame)
    parts = (
        ("ctf-table", "CTF of all micrographs", RESULT),
        ("ctf-quality", "Quality of spectra and fits", [*QUALITY, *(c for c in others if not is_pair(c))]),
        ("ctf-estimators", "Results of each estimator", [*each, *(c for c in others if is_pair(c))]),
    )
    made = [
        make_table(
            frame,
            columns,
            key=key,
            caption=caption,
            limit=run.params.max_table_rows,
            links=links if key == "ctf-table" else None,
        )
        for key, caption, columns in parts
    ]
    return [table for table in made if len(table.columns) > 2]


def _by_item(paths: Sequence[Path]) -> pd.DataFrame:
    frame = concatenate([read_table(path, "micrographs") for path in paths]).with_optics()
    return frame.set_index(pd.Index([item_of(row) for row in frame.to_dict("records")], dtype=object))


def _plots(frame: pd.DataFrame, consensus: ConsensusCtf) -> list[tuple[str, str]]:
    lost = frame["status"].to_numpy() != "accepted"
    u, v, resolution, astigmatism = (
        frame[name].to_numpy(np.float64) if name in frame else np.full(len(frame), np.nan)
        for name in ("rlnDefocusU", "rlnDefocusV", "rlnCtfMaxResolution", "rlnCtfAstigmatism")
    )
    defocus = (u + v) / 2e4
    return [
        ("Defocus of all micrographs", plots.histogram({"defocus": defocus}, label="defocus (µm)")),
        (
            "Fit resolution against defocus, with the limit of the consensus",
            plots.scatter(
                defocus, resolution, lost, labels=("defocus (µm)", "fit resolution (Å)"),
                limits=(None, consensus.max_resolution_A),
            ),
        ),
        (
            "Astigmatism against defocus",
            plots.scatter(
                defocus, astigmatism, lost, labels=("defocus (µm)", "astigmatism U - V (Å)"),
                limits=(None, consensus.max_astigmatism_A),
            ),
        ),
        (
            "Fit resolution in the order of the micrographs",
            plots.course(
                resolution, lost, labels=("micrograph", "fit resolution (Å)"), limit=consensus.max_resolution_A
            ),
        ),
    ]  # fmt: skip


SECTION = Section(
    name="ctf",
    anchors={"ctf": "CTF", "agreement": "Agreement"},
    reads=(ENTERING, MICROGRAPHS, ESTIMATES, REJECTED),
    needs=(MICROGRAPHS.name,),
    build=build,
)
