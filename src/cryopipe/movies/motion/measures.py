"""How far a specimen moved: the measures by which `screen_motion` judges movies, and their limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryopipe.config.movies import ScreenMotion
from cryopipe.movies.motion.star import Motion

#: A spike is off the line by more than the first number (Å), and by more than the second number times what other frames are.
#: With fewer inner frames than the third number there is no median to compare with. These are choices: smaller values call
#: noisy frames spikes, larger ones miss jumps.
_SPIKE_A, _SPIKE_FACTOR, _FEWEST_INNER = 1.0, 5.0, 4
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


def measure_motion(motion: Motion, params: ScreenMotion | None = None) -> MotionMeasures:
    """Measure a trajectory from frame ``skip`` on; a step across missing frames is divided evenly among them."""
    params = params or ScreenMotion()
    motion = _without_first(motion, params.skip)
    if params.ignore_spikes and (spike := find_spike(motion)) is not None:
        motion = _without(motion, spike)
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


def find_spike(motion: Motion) -> int | None:
    """Return the index of a single frame that jumps out and back, or None.

    Such a frame is more than 1 Å off the line between its two neighbours, and more than 5 times as far off as
    others are. Without it no other frame does so. The first and the last frame have one neighbour only, so they
    are never spikes.
    """
    found = _off_line_A(motion)
    if len(found) < _FEWEST_INNER:
        return None
    spike = int(found.argmax()) + 1
    others = _off_line_A(_without(motion, spike))
    limit = max(_SPIKE_A, _SPIKE_FACTOR * float(np.median(others)))
    if found[spike - 1] <= limit or (others > limit).any():
        return None
    return spike


def motion_flag(motion: Motion, params: ScreenMotion) -> str:
    """Return ``no_motion`` (exactly zero: not measured, but aligned elsewhere), ``spike``, or ``none``."""
    motion = _without_first(motion, params.skip)
    if not np.ptp(motion.shifts_px, axis=0).any():
        return "no_motion"
    return "none" if find_spike(motion) is None else "spike"


def _without_first(motion: Motion, skip: int) -> Motion:
    kept = motion.frames > skip
    return Motion(motion.shifts_px[kept], motion.pixel_size_A, motion.frames[kept])


def _without(motion: Motion, index: int) -> Motion:
    return Motion(np.delete(motion.shifts_px, index, axis=0), motion.pixel_size_A, np.delete(motion.frames, index))


def _off_line_A(motion: Motion) -> np.ndarray:
    """Return how far [n - 2], in Å, each inner frame lies off the line between its neighbours."""
    track, t = motion.shifts_px * motion.pixel_size_A, motion.frames.astype(np.float64)
    part = ((t[1:-1] - t[:-2]) / (t[2:] - t[:-2]))[:, None]
    result: np.ndarray = np.hypot(*(track[1:-1] - track[:-2] - part * (track[2:] - track[:-2])).T)
    return result


def excess(measures: MotionMeasures, params: ScreenMotion) -> float:
    """Return by which factor the limits would have to be wider so that the movie passes (1 or less: it passes)."""
    ratios = [value / limit for value, limit in zip(judged(measures, params), limits_A(params), strict=True)]
    return {"frame": ratios[0], "movie": ratios[1], "and": min(ratios), "or": max(ratios)}[params.reject]


def limits_A(params: ScreenMotion) -> tuple[float, float]:
    """Return the limits (frame, movie) in Å. Where none is given it is the default of the criterion."""
    frame, movie = _DEFAULT_LIMITS_A[params.criterion]
    return params.max_frame_shift_A or frame, params.max_movie_shift_A or movie


def judged(measures: MotionMeasures, params: ScreenMotion) -> tuple[float, float]:
    """Return the two measures (frame, movie) in Å that the criterion looks at."""
    if params.criterion == "legacy2020":
        return measures.step_max_norm, measures.range_max_norm
    return measures.step_euclidean, measures.path
