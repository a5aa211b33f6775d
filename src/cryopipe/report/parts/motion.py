"""Motion of all movies: table, plots, and the movies that a user should look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryopipe.config.movies import ScreenMotion
from cryopipe.errors import InputError
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
from cryopipe.report.run_files import RunFiles

COLUMNS = (
    Column("rlnAccumMotionTotal", "total motion", "Å", 1, "high", "Length of the path over all frames."),
    Column("rlnAccumMotionEarly", "early", "Å", 1, meaning="Length of the path in the first 4 e/Å²."),
    Column("rlnAccumMotionLate", "late", "Å", 1, meaning="Length of the path after the first 4 e/Å²."),
    Column.own("crpMotionStepMax", "largest step", 2, "high"),
    Column.own("crpMotionStepEuclidean", "largest step, 2D", 2),
    Column.own("crpMotionRange", "range", 1, "high"),
    Column.own("crpMotionDiameter", "diameter", 1),
    Column.own("crpMotionBlur", "blur", 1, "high"),
    Column.own("crpAlignmentEvidence", "evidence", 0, "low"),
    Column.own("crpFramesLost", "lost frames", 0, "high"),
    Column.own("crpAlignmentResidual", "residual", 2, "high"),
    Column.own("crpAlignmentAgreeing", "agreeing pairs", 2, "low"),
    Column.own("crpLocalPatches", "patches", 0),
    Column.own("crpLocalResidual", "local residual", 2, "high"),
    Column.own("crpFrames", "frames", 0),
)
_MEASURES = {
    "crpMotionStepMax": "step_max_norm",
    "crpMotionStepEuclidean": "step_euclidean",
    "crpMotionRange": "range_max_norm",
    "crpMotionDiameter": "diameter",
    "crpMotionPath": "path",
    "crpMotionBlur": "blur",
}
#: What the two axes of the screening's plot show, by criterion.
_SHOWN = {
    "harm": (("crpMotionBlur", "max_blur_A"), ("crpMotionStepEuclidean", "max_frame_shift_A")),
    "legacy2020": (("crpMotionStepMax", "max_frame_shift_A"), ("crpMotionRange", "max_movie_shift_A")),
    "path": (("crpMotionStepEuclidean", "max_frame_shift_A"), ("crpMotionPath", "max_movie_shift_A")),
}
_AXES = {
    "max_blur_A": "detail that motion inside frames halves (Å)",
    "max_frame_shift_A": "largest step between frames (Å)",
    "max_movie_shift_A": "motion over the movie (Å)",
}


def motion_table(run: RunFiles, screening: ScreenMotion) -> pd.DataFrame:
    """Return one row for each aligned movie: measures of its motion, and whether it was accepted.

    The table of `screen_motion` has the measures of accepted movies. Those of the others are computed here.
    """
    frame = run.table("aligned_micrographs", "micrographs").rows.set_index("crpItem")
    screened = run.table("micrographs", "micrographs").rows
    known = screened.set_index("crpItem")[[name for name in _MEASURES if name in screened]]
    lost = {loss.item: loss.kind for loss in run.losses if loss.step == "screen_motion"}
    absent = frame.index.difference(known.index, sort=False)
    measured = [_measured(run.folder / str(frame.loc[item, "rlnMicrographMetadata"]), screening) for item in absent]
    parts = [part for part in (known, pd.DataFrame(measured, index=absent, columns=list(_MEASURES))) if len(part)]
    if parts:
        frame = frame.join(pd.concat(parts))
    return numeric(frame.assign(status=[lost.get(str(item), "accepted") for item in frame.index]), COLUMNS)


def _measured(path: Path, screening: ScreenMotion) -> dict[str, float]:
    try:
        measures = measure_motion(read_motion(path), screening)
    except InputError:
        return {}  # screen_motion has given the reason why it cannot be read
    return {column: getattr(measures, name) for column, name in _MEASURES.items()}


def motion_part(run: RunFiles) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the numbers for the JSON, and what the page shows."""
    screening = run.params_of("screen_motion", ScreenMotion)
    frame = motion_table(run, screening)
    unbent = _without_local_motion(frame)
    numbers = {
        "movies": len(frame),
        "criterion": screening.criterion,
        "limits": _limits(screening),
        "no_local_motion": unbent,
        "summary": summary(frame, COLUMNS),
        "table": numbers_of(frame, COLUMNS),
    }
    accepted = frame[frame["status"] == "accepted"]
    shown = worst_and_sample(accepted, [c for c in COLUMNS if c.key in accepted], run.params.max_pictures)
    items = [(str(accepted.index[position]), why) for position, why in shown]
    page = {
        "criterion": screening.criterion,
        "limits": numbers["limits"],
        "no_local_motion": unbent,
        "plots": _plots(frame, screening),
        "table": make_table(
            frame,
            COLUMNS,
            key="motion-table",
            caption="Motion of all aligned movies",
            limit=run.params.max_table_rows,
            links={str(i): f"../../movies/align_movies/pictures/{i}_psd.png" for i in frame.index},
        ),
        "summary": summary_rows(frame, COLUMNS),
        "cards": [
            Card(item, why, [*spectra(run.folder, item, wide=True), *tracks(run.folder, item)]) for item, why in items
        ],
        "of": len(accepted),
    }
    return numbers, page


def _limits(screening: ScreenMotion) -> dict[str, float]:
    """Return the limits that the screening had, by their parameters."""
    frame, movie = limits_A(screening)
    limits = {"max_frame_shift_A": frame, "max_movie_shift_A": movie}
    if screening.criterion == "harm":
        limits |= {
            name: value
            for name in ("max_blur_A", "max_lost_frames", "min_evidence")
            if (value := getattr(screening, name)) is not None
        }
    return {name: limit for name, limit in limits.items() if np.isfinite(limit)}


def _without_local_motion(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Return the movies without local motion by the reason that they state."""
    if "crpNoLocalMotion" not in frame:
        return {}
    stated = frame["crpNoLocalMotion"].astype(str)
    return {
        str(reason): [str(item) for item in movies.index]
        for reason, movies in stated[stated != "none"].groupby(stated, sort=True)
    }


def _plots(frame: pd.DataFrame, screening: ScreenMotion) -> list[tuple[str, str]]:
    lost = frame["status"].to_numpy() != "accepted"
    (x, x_limit), (y, y_limit) = _SHOWN[screening.criterion]
    limits = _limits(screening)
    values = {name: _values(frame, name) for name in (x, y, "rlnAccumMotionTotal", "crpAlignmentResidual")}
    return [
        (
            "What the screening judges in each movie, with its limits",
            plots.scatter(
                values[x], values[y], lost, limits=(limits.get(x_limit), limits.get(y_limit)),
                labels=(_AXES[x_limit], _AXES[y_limit]),
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
