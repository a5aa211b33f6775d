"""Step ``screen_motion``: leave out movies that moved too much, from their trajectories alone.

All measures are computed and stored; one pair of them decides. ``legacy2020``: largest step along x or y between
neighbouring frames, and largest range of x or y (xmipp3 movie maxshift of 2020: 5 and 15 Å). ``path``: largest
Euclidean step and length of the path (the version of 2025: 10 and 45 Å). A value equal to its limit passes.
"""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pandas as pd

from cryopipe.config.movies import ScreenMotion
from cryopipe.context import Context
from cryopipe.errors import CryopipeError, InputError
from cryopipe.io.star import read_table, write_rejections, write_table
from cryopipe.items import Rejection
from cryopipe.movies.motion_measures import MotionMeasures, judged, limits_A, measure_motion
from cryopipe.movies.motion_star import Motion, read_motion

#: From this number of movies on, rejecting every one of them is taken for a wrong limit or pixel size, not for bad
#: movies.
_ENOUGH_TO_STOP = 10
#: Columns of the measures, in the order of `MotionMeasures`, Å.
_COLUMNS = ("crpMotionStepMax", "crpMotionStepEuclidean", "crpMotionRange", "crpMotionDiameter", "crpMotionPath")


def rejection_reason(measures: MotionMeasures, params: ScreenMotion) -> str | None:
    """Return why a movie is rejected, naming values and limits, or None if it passes."""
    (step, travel), (step_limit, travel_limit) = judged(measures, params), limits_A(params)
    parts = []
    if step > step_limit:
        parts.append(f"largest step between frames {step:.1f} Å exceeds {step_limit:g} Å")
    if travel > travel_limit:
        parts.append(f"motion over the movie {travel:.1f} Å exceeds {travel_limit:g} Å")
    fails = {
        "frame": step > step_limit,
        "movie": travel > travel_limit,
        "and": len(parts) == 2,
        "or": len(parts) > 0,
    }
    return " and ".join(parts) if fails[params.reject] else None


def screen(motions: dict[str, Motion | str], params: ScreenMotion) -> tuple[dict[str, MotionMeasures], list[Rejection]]:
    """Split movies into accepted and rejected ones.

    Parameters
    ----------
    motions : dict
        Item to its trajectory, or to the reason why there is none.
    params : ScreenMotion
        Criterion and limits.

    Returns
    -------
    accepted : dict of str to MotionMeasures
    rejections : list of Rejection
        Together they hold every item once, in the order of ``motions``.

    Raises
    ------
    CryopipeError
        All of ten or more movies would be rejected; the message names the limits that would keep 90 %.
    """
    accepted: dict[str, MotionMeasures] = {}
    rejections: list[Rejection] = []
    found: list[tuple[float, float]] = []
    for item, motion in motions.items():
        if isinstance(motion, str):
            rejections.append(Rejection(item, "rejected", f"no_alignment: {motion}"))
            continue
        measures = measure_motion(motion)
        found.append(judged(measures, params))
        reason = rejection_reason(measures, params)
        if reason is None:
            accepted[item] = measures
        else:
            rejections.append(Rejection(item, "rejected", reason))
    if len(found) >= _ENOUGH_TO_STOP and not accepted:
        step, travel = np.percentile(np.array(found), 90, axis=0)
        raise CryopipeError(
            f"screen_motion would reject all {len(found)} movies. Limits that keep 90 %: max_frame_shift_A {step:.1f}, "
            f"max_movie_shift_A {travel:.1f}. Is the pixel size right? Are these movies worth going on with?"
        )
    return accepted, rejections


def main(inputs: dict[str, Path], outputs: dict[str, Path], params: ScreenMotion, context: Context) -> None:
    """Screen a batch; input ``micrographs``."""
    table = read_table(inputs["micrographs"], "micrographs")
    motions: dict[str, Motion | str] = {}
    for record in table.rows.to_dict("records"):
        try:
            motions[str(record["crpItem"])] = read_motion(Path(record["rlnMicrographMetadata"]))
        except InputError as error:
            motions[str(record["crpItem"])] = str(error)
    accepted, rejections = screen(motions, params)
    kept = np.array([item in accepted for item in motions], dtype=bool)
    values = np.array([astuple(m) for m in accepted.values()], dtype=np.float64).reshape(-1, len(_COLUMNS))
    measures = pd.DataFrame(values, columns=list(_COLUMNS))
    # Exactly zero motion is no measurement but its absence (movies aligned elsewhere): accepted, and said.
    measures["crpMotionFlag"] = np.where(measures["crpMotionPath"] == 0, "no_motion", "none").astype(object)
    rows = pd.concat([table.rows[kept].reset_index(drop=True), measures], axis=1)
    write_table(outputs["micrographs"], table.with_rows(rows))
    write_rejections(outputs["rejected"], rejections)
    context.log.info("%s: %d accepted, %d rejected", context.step, len(accepted), len(rejections))
