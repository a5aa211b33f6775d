"""How far a specimen moved: the measures that `screen_motion` judges movies by, and their limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryopipe.config.movies import ScreenMotion
from cryopipe.movies.motion_star import Motion

_DEFAULT_LIMITS_A = {"legacy2020": (5.0, 15.0), "path": (10.0, 45.0)}


@dataclass(frozen=True)
class MotionMeasures:
    """How far a specimen moved, all in Å.

    Attributes
    ----------
    step_max_norm, step_euclidean : float
        Largest step between neighbouring frames: along x or y; Euclidean.
    range_max_norm, diameter : float
        Extent of the trajectory: larger range of x and y; largest distance of two frames.
    path : float
        Length of the path.
    """

    step_max_norm: float
    step_euclidean: float
    range_max_norm: float
    diameter: float
    path: float


def measure_motion(motion: Motion) -> MotionMeasures:
    """Measure a trajectory; a step across dropped frames is shared out evenly among them."""
    track = motion.shifts_px * motion.pixel_size_A
    if len(track) < 2:
        return MotionMeasures(0.0, 0.0, 0.0, 0.0, 0.0)
    gaps = np.diff(motion.frames)[:, None]
    steps = np.abs(np.diff(track, axis=0))
    lengths = np.hypot(*steps.T)
    differences = track[:, None, :] - track[None, :, :]
    return MotionMeasures(
        step_max_norm=float((steps / gaps).max()),
        step_euclidean=float((lengths / gaps[:, 0]).max()),
        range_max_norm=float(np.ptp(track, axis=0).max()),
        diameter=float(np.hypot(differences[..., 0], differences[..., 1]).max()),
        path=float(lengths.sum()),
    )


def limits_A(params: ScreenMotion) -> tuple[float, float]:
    """Return the limits (frame, movie) in Å, the criterion's own where none is given."""
    frame, movie = _DEFAULT_LIMITS_A[params.criterion]
    return params.max_frame_shift_A or frame, params.max_movie_shift_A or movie


def judged(measures: MotionMeasures, params: ScreenMotion) -> tuple[float, float]:
    """Return the two measures (frame, movie) in Å that the criterion looks at."""
    if params.criterion == "legacy2020":
        return measures.step_max_norm, measures.range_max_norm
    return measures.step_euclidean, measures.path
