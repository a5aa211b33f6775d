"""CTFs of all micrographs: tables by criterion, plots, and the micrographs that a person should look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryopipe.config.ctf import ConsensusCtf
from cryopipe.config.report import Report
from cryopipe.ctf.consensus.branches import item_of
from cryopipe.io.star import concatenate, read_table
from cryopipe.report.ctf_columns import QUALITY, RESULT, SOURCES, each_estimator, is_pair, other_columns
from cryopipe.report.drawing import plots
from cryopipe.report.drawing.cards import Card, ctf_pictures
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
from cryopipe.report.estimators import PairComparison, compare, estimators_section
from cryopipe.report.numbers import Loss, is_branch

Inputs = Mapping[str, Any]

_DEFAULT_LIMIT_A = 5.0


def estimator_tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Return ``{estimator: its rows joined with their optics, index: items}``, in the order of the inputs."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in inputs.get("estimates", []):
        files[path.parent.name.removeprefix("estimate_ctf_")].append(path)
    return {name: _by_item(paths) for name, paths in files.items()}


def ctf_table(inputs: Inputs, losses: Sequence[Loss], estimates: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one row for each micrograph that entered the stage.

    Accepted ones have the columns of the table that goes on; for the others stands what the estimators said of them.
    """
    entering = concatenate([read_table(path, "micrographs") for path in inputs["entering"]]).rows
    items = [item_of(row) for row in entering.to_dict("records")]
    frame = _by_item(inputs["micrographs"])
    for name, table in estimates.items():
        own = {source: f"crpCtf{name.title()}{what}" for what, source in SOURCES.items() if source in table}
        # in a row that goes on these stand already; a rejected one has them from the estimator's table alone
        frame = frame.combine_first(table[list(own)].rename(columns=own))
    for table in estimates.values():
        frame = frame.combine_first(table)
    lost = {loss.item: loss.kind for loss in losses if loss.step.startswith("consensus_ctf")}
    frame = frame.reindex(items)
    frame = frame.assign(status=[lost.get(item, "accepted") for item in items])
    return numeric(frame, [*RESULT, *QUALITY, *each_estimator(estimates), *other_columns(frame)])


def with_agreement(frame: pd.DataFrame, pairs: Sequence[PairComparison], judged: Sequence[str]) -> pd.DataFrame:
    """Return ``frame`` with the agreement of all pairs, for the micrographs that the consensus rejected, too.

    Where it says nothing of an item, the worst pair of the ``judged`` estimators stands for their agreement.
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


def ctf_section(
    inputs: Inputs, losses: Sequence[Loss], run: Path, params: Report, consensus: ConsensusCtf
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the numbers for the JSON (``ctf`` and, with two estimators or more, ``agreement``), and what the page shows."""
    estimates = estimator_tables(inputs)
    pairs = compare(estimates)
    frame = with_agreement(ctf_table(inputs, losses, estimates), pairs, consensus.estimators)
    # with one estimator these columns repeat the result
    each = each_estimator(estimates) if len(estimates) > 1 else []
    columns = [*RESULT, *QUALITY, *each, *other_columns(frame)]
    accepted = frame[frame["status"] == "accepted"]
    numbers: dict[str, Any] = {
        "ctf": {"micrographs": len(frame), "summary": summary(frame, columns), "table": numbers_of(frame, columns)}
    }
    judged = [c for c in columns if c.key in accepted and c.worst]
    shown = worst_and_sample(accepted, judged, params.max_pictures)
    items = [(str(accepted.index[position]), why) for position, why in shown]
    steps = [f"estimate_ctf_{name}" for name in estimates]
    page: dict[str, Any] = {
        "plots": _plots(frame, consensus),
        "tables": _tables(frame, each, params, steps),
        "summary": summary_rows(frame, RESULT),
        "quality": summary_rows(frame, QUALITY),
        "cards": [Card(item, why, ctf_pictures(run, item, steps)) for item, why in items],
        "of": len(accepted),
        "failures": [loss for loss in losses if is_branch(loss.step)],
        "estimators": None,
    }
    if len(estimates) > 1:
        # xmipp's own measure is on another scale: there the phases' limit is the default one
        own = consensus.max_agreement_A if consensus.agreement != "legacy_linear" else None
        numbers["agreement"], page["estimators"] = estimators_section(
            estimates, pairs, {str(item) for item in accepted.index}, own or _DEFAULT_LIMIT_A
        )
    return numbers, page


def _tables(frame: pd.DataFrame, each: Sequence[Column], params: Report, steps: Sequence[str]) -> list[Table]:
    # the first estimator's picture; spectrum and model side by side
    ending = "_ctf_halfplane.png" if steps[:1] == ["estimate_ctf_xmipp"] else "_ctf.png"
    links = {str(i): f"../../ctf/{steps[0]}/pictures/{i}{ending}" for i in frame.index} if steps else {}
    others = other_columns(frame)
    parts = (
        ("ctf-table", "CTF of all micrographs", RESULT),
        ("ctf-quality", "Quality of spectra and fits", [*QUALITY, *(c for c in others if not is_pair(c))]),
        ("ctf-estimators", "What each estimator said", [*each, *(c for c in others if is_pair(c))]),
    )
    made = [
        make_table(
            frame,
            columns,
            key=key,
            caption=caption,
            limit=params.max_table_rows,
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
