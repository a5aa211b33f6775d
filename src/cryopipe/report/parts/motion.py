"""Motion of all movies: table, plots, and the movies that a person should look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryopipe.config.movies import ScreenMotion
from cryopipe.config.report import Report
from cryopipe.errors import InputError
from cryopipe.io.star import concatenate, read_table
from cryopipe.movies.motion.measures import limits_A, measure_motion
from cryopipe.movies.motion.star import read_motion
from cryopipe.report.drawing import plots
from cryopipe.report.drawing.cards import Card, spectra, tracks
from cryopipe.report.drawing.tables import (
    Column,
    make_table,
    numbers_of,
    numeric,
    summary,
    summary_rows,
    worst_and_sample,
)
from cryopipe.report.numbers import Loss

Inputs = Mapping[str, Any]

COLUMNS = (
    Column("rlnAccumMotionTotal", "total motion", "Å", 1, "high", "Length of the path over all frames."),
    Column("rlnAccumMotionEarly", "early", "Å", 1, says="Its part in the first 4 e/Å²."),
    Column("rlnAccumMotionLate", "late", "Å", 1, says="Its part after the first 4 e/Å²."),
    Column("crpMotionStepMax", "largest step", "Å", 2, "high", "Between neighbouring frames, along x or y."),
    Column("crpMotionStepEuclidean", "largest step, 2D", "Å", 2, says="Between neighbouring frames, Euclidean."),
    Column("crpMotionRange", "range", "Å", 1, "high", "Larger extent of the track along x and y."),
    Column("crpMotionDiameter", "diameter", "Å", 1, says="Largest distance between the positions of two frames."),
    Column("crpAlignmentResidual", "residual", "Å", 2, "high", "Scatter of the frame pairs about the global track."),
    Column("crpAlignmentAgreeing", "agreeing pairs", "", 2, "low", "Share of frame pairs that fit the track."),
    Column("crpLocalPatches", "patches", "", 0, says="Patches of the local motion; 0: none was fitted."),
    Column("crpLocalResidual", "local residual", "Å", 2, "high", "Scatter of the patches about the local field."),
    Column("crpFrames", "frames", "", 0, says="Frames that were aligned."),
)
_MEASURES = {
    "crpMotionStepMax": "step_max_norm",
    "crpMotionStepEuclidean": "step_euclidean",
    "crpMotionRange": "range_max_norm",
    "crpMotionDiameter": "diameter",
    "crpMotionPath": "path",
}


def motion_table(inputs: Inputs, losses: Sequence[Loss], run: Path, screening: ScreenMotion) -> pd.DataFrame:
    """Return one row for each aligned movie: measures of its motion and what became of it.

    What `screen_motion` measured stands in its table for the movies that it accepted; the others are measured here.
    """
    rows = concatenate([read_table(path, "micrographs") for path in inputs["aligned"]]).rows
    frame = rows.set_index("crpItem")
    screened = concatenate([read_table(path, "micrographs") for path in inputs["entering"]]).rows
    known = screened.set_index("crpItem")[[name for name in _MEASURES if name in screened]]
    lost = {loss.item: loss.kind for loss in losses if loss.step == "screen_motion"}
    absent = frame.index.difference(known.index, sort=False)
    measured = [_measured(run / str(frame.loc[item, "rlnMicrographMetadata"]), screening) for item in absent]
    parts = [part for part in (known, pd.DataFrame(measured, index=absent, columns=list(_MEASURES))) if len(part)]
    if parts:
        frame = frame.join(pd.concat(parts))
    return numeric(frame.assign(status=[lost.get(str(item), "accepted") for item in frame.index]), COLUMNS)


def _measured(path: Path, screening: ScreenMotion) -> dict[str, float]:
    try:
        measures = measure_motion(read_motion(path), screening)
    except InputError:
        return {}  # why it cannot be read is the reason that screen_motion gave
    return {column: getattr(measures, name) for column, name in _MEASURES.items()}


def motion_section(
    inputs: Inputs, losses: Sequence[Loss], run: Path, params: Report, screening: ScreenMotion
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the numbers for the JSON, and what the page shows."""
    frame = motion_table(inputs, losses, run, screening)
    numbers = {"movies": len(frame), "summary": summary(frame, COLUMNS), "table": numbers_of(frame, COLUMNS)}
    accepted = frame[frame["status"] == "accepted"]
    shown = worst_and_sample(accepted, [c for c in COLUMNS if c.key in accepted], params.max_pictures)
    items = [(str(accepted.index[position]), why) for position, why in shown]
    page = {
        "plots": _plots(frame, screening),
        "table": make_table(
            frame, COLUMNS, key="motion-table", caption="Motion of all aligned movies", limit=params.max_table_rows,
            links={str(i): f"../../movies/align_movies/pictures/{i}_psd.png" for i in frame.index},
        ),
        "summary": summary_rows(frame, COLUMNS),
        "cards": [Card(item, why, [*spectra(run, item, wide=True), *tracks(run, item)]) for item, why in items],
        "of": len(accepted),
    }  # fmt: skip
    return numbers, page


def _plots(frame: pd.DataFrame, screening: ScreenMotion) -> list[tuple[str, str]]:
    lost = frame["status"].to_numpy() != "accepted"
    step, travel = limits_A(screening)
    names = (
        ("crpMotionStepMax", "crpMotionRange")
        if screening.criterion == "legacy2020"
        else ("crpMotionStepEuclidean", "crpMotionPath")
    )
    values = {name: _values(frame, name) for name in (*names, "rlnAccumMotionTotal", "crpAlignmentResidual")}
    return [
        (
            "Largest step and extent of each movie, with the limits of the screening",
            plots.scatter(
                values[names[0]], values[names[1]], lost, limits=(step, travel),
                labels=("largest step between frames (Å)", "motion over the movie (Å)"),
            ),
        ),
        (
            "Total motion in the order of the movies",
            plots.course(values["rlnAccumMotionTotal"], lost, labels=("movie", "total motion (Å)")),
        ),
        (
            "How well the frame pairs fit the track",
            plots.histogram({"residual": values["crpAlignmentResidual"]}, label="residual of the alignment (Å)"),
        ),
    ]  # fmt: skip


def _values(frame: pd.DataFrame, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    if name not in frame:
        return np.full(len(frame), np.nan)
    return pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64)
