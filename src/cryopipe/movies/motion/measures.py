"""How far a specimen moved: the measures by which `screen_motion` judges movies, and their limits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cryopipe.config.movies import ScreenMotion
from cryopipe.movies.motion.dose_weighting import frame_weight
from cryopipe.movies.motion.star import Motion

#: A spike is off the line by more than the first number (Å), and by more than the second number times what other frames are.
#: With fewer inner frames than the third number there is no median to compare with. These are choices: smaller values call
#: noisy frames spikes, larger ones miss jumps.
_SPIKE_A, _SPIKE_FACTOR, _FEWEST_INNER = 1.0, 5.0, 4
_DEFAULT_LIMITS_A = {"harm": (20.0, np.inf), "legacy2020": (5.0, 15.0), "path": (10.0, 45.0)}
#: Sizes of detail (Å) for the blur, from finer than any map to coarser than any particle, and directions over half a turn.
_DETAILS_A, _DIRECTIONS = np.geomspace(1.0, 200.0, 320), np.cos(np.pi * (np.arange(16) + 0.5) / 16)


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
    blur : float
        Size of detail that loses half of its power by motion inside the frames. 0 if it is finer than 1 Å.
    """

    step_max_norm: float
    step_euclidean: float
    range_max_norm: float
    diameter: float
    path: float
    blur: float


def measure_motion(motion: Motion, params: ScreenMotion | None = None) -> MotionMeasures:
    """Measure a trajectory from frame ``skip`` on. A step across missing frames is divided evenly among them."""
    params = params or ScreenMotion()
    motion = _without_first(motion, params.skip)
    if params.ignore_spikes and (spike := find_spike(motion)) is not None:
        motion = _without(motion, spike)
    track = motion.shifts_px * motion.pixel_size_A
    if len(track) < 2:
        return MotionMeasures(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
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
        blur=blur_A(motion),
    )


def blur_A(motion: Motion) -> float:
    """Return the size of detail, Å, that loses half of its power by motion inside the frames, in the mean over directions.

    A frame in which the specimen moves evenly by s keeps sin²(πs·k) / (πs·k)² of the power at the frequency k. Here s is the
    path from halfway to the frame before to halfway to the frame after. If the exposure is known, frames count by their exposure
    weights (squared). With a steady motion of s per frame, detail of 1.45 s loses half of its power.
    """
    track, t = motion.shifts_px * motion.pixel_size_A, motion.frames.astype(np.float64)
    travel = np.hypot(*np.gradient(track, t, axis=0).T)
    k = 1.0 / _DETAILS_A
    weights = np.ones((len(track), len(k)))
    if motion.dose_per_frame_e_A2 > 0:
        ends = motion.pre_exposure_e_A2 + motion.dose_per_frame_e_A2 * t
        weights = np.array([frame_weight(k, end, motion.voltage_kV) ** 2 for end in ends])
    kept = (np.sinc(travel[:, None, None] * k[:, None] * _DIRECTIONS) ** 2).mean(axis=2)
    power = (weights * kept).sum(axis=0) / weights.sum(axis=0)
    halved = _DETAILS_A[power < 0.5]
    return float(halved[-1]) if len(halved) else 0.0


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
    return replace(motion, shifts_px=motion.shifts_px[kept], frames=motion.frames[kept])


def _without(motion: Motion, index: int) -> Motion:
    kept = np.arange(len(motion.frames)) != index
    return replace(motion, shifts_px=motion.shifts_px[kept], frames=motion.frames[kept])


def _off_line_A(motion: Motion) -> np.ndarray:
    """Return how far [n - 2], in Å, each inner frame lies off the line between its neighbours."""
    track, t = motion.shifts_px * motion.pixel_size_A, motion.frames.astype(np.float64)
    part = ((t[1:-1] - t[:-2]) / (t[2:] - t[:-2]))[:, None]
    result: np.ndarray = np.hypot(*(track[1:-1] - track[:-2] - part * (track[2:] - track[:-2])).T)
    return result


def judged(measures: MotionMeasures, params: ScreenMotion) -> dict[str, tuple[str, float, float]]:
    """Return ``{parameter of a limit that counts: (name of the measure, its value, the limit)}``, Å."""
    frame, movie = limits_A(params)
    by_axis = params.criterion == "legacy2020"
    travel = {"harm": measures.diameter, "legacy2020": measures.range_max_norm, "path": measures.path}[params.criterion]
    step = measures.step_max_norm if by_axis else measures.step_euclidean
    found = {
        "max_frame_shift_A": ("largest step between frames", step, frame),
        "max_movie_shift_A": ("motion over the movie", travel, movie),
    }
    if params.reject in ("frame", "movie"):
        found = {f"max_{params.reject}_shift_A": found[f"max_{params.reject}_shift_A"]}
    if params.criterion == "harm" and params.max_blur_A is not None:
        found["max_blur_A"] = ("motion inside the frames halves details of", measures.blur, params.max_blur_A)
    return found


def excess(measures: MotionMeasures, params: ScreenMotion) -> float:
    """Return by which factor the limits would have to be wider so that the movie passes (1 or less: it passes)."""
    ratios = {name: value / limit for name, (_, value, limit) in judged(measures, params).items()}
    blur = ratios.pop("max_blur_A", 0.0)
    shifts = min(ratios.values()) if params.reject == "and" else max(ratios.values())
    return max(shifts, blur)


def limits_A(params: ScreenMotion) -> tuple[float, float]:
    """Return the limits (frame, movie) in Å. Where none is given it is the default of the criterion. Infinite: no limit."""
    frame, movie = _DEFAULT_LIMITS_A[params.criterion]
    return params.max_frame_shift_A or frame, params.max_movie_shift_A or movie
