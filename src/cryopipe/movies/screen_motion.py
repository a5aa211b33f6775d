"""Step ``screen_motion``: leave out movies that could not be aligned, or that were blurred by motion.

The default criterion, ``harm``, judges how much detail the motion costs. A drift that was followed costs only the blur inside
each frame. So the length of the track does not count. A movie is left out in any of four cases: detail of 8 Å loses half of its
power by motion inside the frames; a step between frames is larger than the detail by which frames are aligned; so many frames
share nothing with the others that half of the power is lost; or the frames share no more than frames of noise do
(`cryopipe.movies.motion.trust`).

``legacy2020`` is the largest step along x or y between neighbouring frames, and the largest range of x or y (xmipp3 movie
maxshift of 2020: 5 and 15 Å). ``path`` is the largest Euclidean step and the length of the path (the version of 2025: 10 and
45 Å). All measures are computed and stored, whichever criterion decides. A value equal to its limit passes. Motion of exactly
zero means that it was not measured. Such movies are flagged. They are accepted unless the table states that their frames share
nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryopipe.config.movies import ScreenMotion
from cryopipe.context import Context
from cryopipe.errors import CryopipeError, InputError
from cryopipe.io.star import read_table, write_rejections, write_table
from cryopipe.items import Rejection
from cryopipe.movies.motion.measures import MotionMeasures, excess, judged, measure_motion, motion_flag
from cryopipe.movies.motion.star import Motion, read_motion

#: If at least this number of movies are all rejected, a limit or the pixel size is assumed to be wrong, not the movies.
_ENOUGH_TO_STOP = 5
#: Columns of the measures, in the order of `MotionMeasures`, Å.
_COLUMNS = (
    "crpMotionStepMax",
    "crpMotionStepEuclidean",
    "crpMotionRange",
    "crpMotionDiameter",
    "crpMotionPath",
    "crpMotionBlur",
)


def rejection_reason(measures: MotionMeasures, params: ScreenMotion) -> str | None:
    """Return why a movie is rejected, naming values and limits, or None if it passes."""
    if excess(measures, params) <= 1:
        return None
    parts = []
    for name, (words, value, limit) in judged(measures, params).items():
        if value > limit:
            verb = "and finer, the limit is" if name == "max_blur_A" else "exceeds"
            parts.append(f"{words} {value:.1f} Å {verb} {limit:g} Å")
    return " and ".join(parts)


def distrust(record: dict[Hashable, Any], params: ScreenMotion) -> str | None:
    """Return why the alignment of a row of the table cannot be trusted, or None. Values that the row lacks are not judged."""
    if params.criterion != "harm":
        return None
    evidence, lost, frames = (record.get(name) for name in ("crpAlignmentEvidence", "crpFramesLost", "crpFrames"))
    if params.min_evidence is not None and evidence is not None and float(evidence) < params.min_evidence:
        return (
            f"the frames share no more than noise (evidence {float(evidence):.0f}, {params.min_evidence:g} is required)"
        )
    if params.max_lost_frames is not None and lost is not None and frames is not None:
        share = float(lost) / max(float(frames), 1.0)
        if share > params.max_lost_frames:
            return f"{lost} of {frames} frames share nothing with the others ({share:.2f} exceeds {params.max_lost_frames:g})"
    return None


def no_alignment(motion: Motion, params: ScreenMotion) -> str | None:
    """Return why a trajectory cannot be judged, or None if it can."""
    if not len(motion.frames):
        return "the motion file has no frames"
    if motion.frames.max() <= params.skip:
        return f"screen_motion.skip {params.skip} skips all {motion.frames.max()} frames"
    if not np.isfinite(motion.shifts_px).all():
        return f"the shift of frame {motion.frames[~np.isfinite(motion.shifts_px).all(axis=1)][0]} is not a number"
    if (np.diff(motion.frames) <= 0).any():
        return "the motion file lists a frame twice"
    return None


def screen(
    motions: dict[str, Motion | str], params: ScreenMotion, distrusted: dict[str, str] | None = None
) -> tuple[dict[str, MotionMeasures], list[Rejection]]:
    """Split movies into accepted and rejected ones.

    Parameters
    ----------
    motions : dict
        For each item its trajectory, or the reason why there is none.
    params : ScreenMotion
        Criterion and limits.
    distrusted : dict of str to str, optional
        Items whose alignment cannot be trusted, with the reason.

    Returns
    -------
    accepted : dict of str to MotionMeasures
    rejections : list of Rejection
        Both together have every item once, in the order of ``motions``.

    Raises
    ------
    CryopipeError
        All movies, five or more, would be rejected. The message names limits that would keep 90 %.
    """
    accepted: dict[str, MotionMeasures] = {}
    rejections: list[Rejection] = []
    found: list[MotionMeasures] = []
    for item, motion in motions.items():
        lacking = motion if isinstance(motion, str) else no_alignment(motion, params)
        if isinstance(motion, str) or lacking is not None:
            rejections.append(Rejection(item, "rejected", f"no_alignment: {lacking}"))
            continue
        measures = measure_motion(motion, params)
        found.append(measures)
        reasons = [rejection_reason(measures, params), (distrusted or {}).get(item)]
        reason = " and ".join(text for text in reasons if text)
        if not reason:
            accepted[item] = measures
            continue
        spike = " (one frame alone jumps out and back)" if motion_flag(motion, params) == "spike" else ""
        rejections.append(Rejection(item, "rejected", reason + spike))
    if len(motions) >= _ENOUGH_TO_STOP and not accepted:
        raise CryopipeError(_all_rejected(found, rejections, params))
    return accepted, rejections


def _all_rejected(found: list[MotionMeasures], rejections: list[Rejection], params: ScreenMotion) -> str:
    """Return the error message if no movie is left: how far they moved, and which limits would keep 90 % of them."""
    if not found:
        return (
            f"screen_motion: none of the {len(rejections)} movies has a usable trajectory ({rejections[0].item}: "
            f"{rejections[0].reason}). Run align_movies again."
        )
    excesses = np.array([excess(m, params) for m in found])
    kept = np.argsort(excesses, kind="stable")[: int(np.ceil(0.9 * len(found)))]
    values = [judged(m, params) for m in found]
    advice, spread = [], []
    for name, (words, _, limit) in values[0].items():
        column = np.array([value[name][1] for value in values])
        both = params.reject == "and" and name != "max_blur_A"
        wider = excesses[kept].max() * limit if both else max(column[kept].max(), limit)
        # rounded up, so that the printed limits do keep 90 %
        advice += [f"{name} {np.ceil(10 * wider) / 10:.1f}"] if np.isfinite(wider) else []
        spread.append(f"{words} {' / '.join(f'{v:.1f}' for v in np.percentile(column, [0, 25, 50, 75, 100]))} Å")
    return (
        f"screen_motion would reject all {len(rejections)} movies ({len(rejections) - len(found)} of them have no "
        f"trajectory). Reason of the first: {rejections[0].reason}. Smallest, quartiles and largest: {', '.join(spread)}. Limits "
        f"that keep 90 % of the aligned movies: {', '.join(advice)}. Check the pixel size, and whether these movies are good "
        "enough to go on with."
    )


def main(inputs: dict[str, Path], outputs: dict[str, Path], params: ScreenMotion, context: Context) -> None:
    """Screen a batch: input ``micrographs``; outputs ``micrographs`` (STAR, with the measures) and ``rejected`` (TSV)."""
    table = read_table(inputs["micrographs"], "micrographs")
    rows = table.rows.drop(columns=[*_COLUMNS, "crpMotionFlag"], errors="ignore")
    for column in ("crpItem", "rlnMicrographMetadata"):
        if column not in rows and len(rows):
            raise InputError(
                f"{inputs['micrographs']}: the column {column} is missing. Make the table with align_movies."
            )
    motions: dict[str, Motion | str] = {}
    distrusted: dict[str, str] = {}
    for record in rows.to_dict("records"):
        item = str(record["crpItem"])
        if item in motions:
            raise InputError(f"{inputs['micrographs']}: two micrographs are called {item}. Name each movie once.")
        try:
            motions[item] = read_motion(Path(record["rlnMicrographMetadata"]))
        except (InputError, OSError) as error:
            motions[item] = str(error)
        if (reason := distrust(record, params)) is not None:
            distrusted[item] = reason
    accepted, rejections = screen(motions, params, distrusted)
    kept = np.array([item in accepted for item in motions], dtype=bool)
    values = np.array([astuple(m) for m in accepted.values()], dtype=np.float64).reshape(-1, len(_COLUMNS))
    measures = pd.DataFrame(values, columns=list(_COLUMNS))
    flags = [motion_flag(m, params) for item, m in motions.items() if item in accepted and isinstance(m, Motion)]
    measures["crpMotionFlag"] = np.array(flags, dtype=object)
    write_table(
        outputs["micrographs"], table.with_rows(pd.concat([rows[kept].reset_index(drop=True), measures], axis=1))
    )
    write_rejections(outputs["rejected"], rejections)
    say = context.log.info if accepted or not motions else context.log.warning
    say("%s: %d accepted, %d rejected", context.step, len(accepted), len(rejections))
