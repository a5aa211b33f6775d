"""Step ``estimate_gain``: the camera's gain as the movies show it, the orientation and sense of a given one, defects.

The movies' own response is their summed frames over the smooth background (`flat_field`); a given gain is compared
with it in 8 orientations and both senses (`gain_orientation`). What a gain leaves behind (residual) is measured in
the same way.

References
----------
Sorzano et al. 2018, J. Struct. Biol. 203:90, doi:10.1016/j.jsb.2018.03.012; Afanasyev et al. 2015, Sci. Rep. 5:10317.
Known limits: structure that stands at the same place in all movies (a carbon edge in a single movie) enters the
estimate; with one movie only, fixed pattern and specimen cannot be told apart, so that such an estimate is never used
for correction.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryopipe.config.movies import EstimateGain
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.io.atomic import atomic_write
from cryopipe.io.mrc import write_image
from cryopipe.io.star import concatenate, read_table
from cryopipe.movies.defects import find_defects, write_defects
from cryopipe.movies.flat_field import FlatField, Reproducibility, flat_field, reproducibility, smooth_background
from cryopipe.movies.gain_orientation import OrientationScore, as_correction, score_orientations
from cryopipe.movies.movie_list import MovieEntry, movie_entries, read_reference
from cryopipe.movies.rank_gain import ideal_frame, rank_gain

#: Below this share of the shot noise (in variance, summed over all frames used) a gain cannot matter to any micrograph.
_MATERIAL_SHARE = 0.1


@dataclass(frozen=True)
class FrameSums:
    """Sums over the frames of all movies, in two halves of the movies (by name, alternating).

    Attributes
    ----------
    halves : list of ndarray ``[y, x]`` float32
        Two sums; the second is absent with one movie.
    ideal : ndarray ``[y, x]`` float64 or None
        Sum of the rank-equalised frames (method ``rank``).
    movies, frames : int
        How many entered.
    """

    halves: list[np.ndarray]
    ideal: np.ndarray | None
    movies: int
    frames: int

    @property
    def total(self) -> np.ndarray:
        """Sum of both halves [y, x]."""
        return sum(self.halves[1:], self.halves[0])


@dataclass(frozen=True)
class Decision:
    """What is done with the gain: the multiplicative gain to use [y, x], from where, and why."""

    gain: np.ndarray
    source: str
    reason: str
    orientation: str | None = None
    sense: str | None = None


def sum_frames(entries: Sequence[MovieEntry], params: EstimateGain, context: Context) -> FrameSums:
    """Add up the frames of all movies, one movie a thread; a movie that cannot be read is left out with a warning.

    Raises
    ------
    InputError
        No movie could be read, or their frames differ in size.
    """

    def one(entry: MovieEntry) -> tuple[np.ndarray, np.ndarray | None, int] | None:
        try:
            with entry.open() as movie:
                used = range(0, len(movie), params.frame_step)
                total = np.zeros(movie.shape[1:], dtype=np.float32)
                ideal = np.zeros(movie.shape[1:]) if params.method == "rank" else None
                for index in used:
                    frame = movie.read_frame(index)
                    np.add(total, frame, out=total, casting="unsafe")
                    if ideal is not None:
                        ideal += ideal_frame(frame)
                return total, ideal, len(used)
        except (InputError, OSError, ValueError) as error:
            context.log.warning("%s: %s is left out: %s", context.step, entry.item, error)
            return None

    halves: list[np.ndarray] = []
    ideal_sum: np.ndarray | None = None
    movies = frames = 0
    chosen = sorted(entries, key=lambda e: e.item)[:: params.movie_step]
    with ThreadPoolExecutor(max(context.threads, 1)) as pool:
        for start in range(0, len(chosen), 8):  # in groups, so that finished sums do not pile up in memory
            for entry, result in zip(chosen[start : start + 8], pool.map(one, chosen[start : start + 8]), strict=True):
                if result is None:
                    continue
                total, ideal, count = result
                if halves and total.shape != halves[0].shape:
                    raise InputError(
                        f"{entry.path} has frames of {total.shape[1]} x {total.shape[0]} pixels, the movies before it "
                        f"{halves[0].shape[1]} x {halves[0].shape[0]}. One gain cannot fit both: run them as two "
                        "datasets."
                    )
                if movies < 2:
                    halves.append(total)
                else:
                    halves[movies % 2] += total
                if ideal is not None:
                    ideal_sum = ideal if ideal_sum is None else ideal_sum + ideal
                movies, frames = movies + 1, frames + count
            context.progress(min(start + 8, len(chosen)), len(chosen), "movies summed")
    if not halves:
        raise InputError(
            f"none of the {len(chosen)} movies could be read, so there is nothing to estimate a gain from. See "
            "the warnings above."
        )
    return FrameSums(halves, ideal_sum, movies, frames)


def decide_gain(
    given: np.ndarray | None,
    scores: Sequence[OrientationScore],
    field: FlatField,
    evidence: Reproducibility | None,
    params: EstimateGain,
) -> Decision:
    """Choose between the given gain (oriented), the estimated one and none.

    Parameters
    ----------
    given : ndarray ``[y', x']`` or None
        The gain reference as it came.
    scores : sequence of OrientationScore
        Best first; empty without a given gain.
    field : FlatField
        The movies' own response.
    evidence : Reproducibility or None
        Fixed pattern and noise of the response; None with a single movie.
    params : EstimateGain
        Limits, and an orientation or sense fixed by the user.

    Raises
    ------
    InputError
        The orientation is ambiguous although the gain matters, or it fits only when shifted.
    """
    ones = np.ones_like(field.response)
    if given is None:
        return _without_reference(field, evidence, ones)
    allowed = [s for s in scores if params.orientation in ("auto", s.orientation) and params.sense in ("auto", s.sense)]
    if not allowed:
        raise InputError(
            f"orientation {params.orientation} does not fit: the gain has shape {given.shape}, the frames "
            f"{field.response.shape} (y, x)."
        )
    best = allowed[0]
    chosen = Decision(
        as_correction(given, orientation=best.orientation, sense=best.sense), "given", "", best.orientation, best.sense
    )
    if params.orientation != "auto" and params.sense != "auto":
        return _with(chosen, f"orientation and sense are set by the user (score {best.score:.1f} σ)")
    others = [s for s in allowed[1:] if s.score > 0]
    margin = best.score / others[0].score if others else np.inf
    if best.score >= params.min_score and margin >= params.min_margin:
        if best.shift_yx_px != (0, 0):
            y, x = best.shift_yx_px
            raise InputError(
                f"the gain reference fits the movies only when shifted by {x}, {y} pixels (x, y) in orientation "
                f"{best.orientation}: "
                "it was cut or padded differently. Give the gain of the same camera area."
            )
        return _with(chosen, f"score {best.score:.1f} σ, {margin:.1f} times the second best")
    return _ambiguous(chosen, best, margin, evidence, params, ones)


def _without_reference(field: FlatField, evidence: Reproducibility | None, ones: np.ndarray) -> Decision:
    if evidence is None:
        return Decision(ones, "none", "no gain given, and one movie alone cannot tell gain from specimen")
    pattern, noise = evidence.pattern_sd, evidence.noise_sd
    text = f"fixed pattern {pattern:.2%}, noise of its estimate {noise:.2%}"
    if pattern > noise:
        return Decision(1.0 / np.maximum(field.response, np.float32(0.05)), "estimated", f"no gain given; {text}")
    return Decision(ones, "none", f"no gain given, and its estimate would add more noise than it removes ({text})")


def _ambiguous(
    chosen: Decision,
    best: OrientationScore,
    margin: float,
    evidence: Reproducibility | None,
    params: EstimateGain,
    ones: np.ndarray,
) -> Decision:
    """Decide when no orientation stands out: the gain does not matter, the movies are corrected already, or stop."""
    live = chosen.gain[chosen.gain > 0]
    spread = float(np.std(live, dtype=np.float64))
    facts = f"best score {best.score:.1f} σ ({best.orientation}, {best.sense}), {margin:.1f} times the second best"
    if evidence is not None:
        if (spread / evidence.noise_sd) ** 2 < _MATERIAL_SHARE:
            return _with(
                chosen,
                f"orientation not determined, but the gain varies by only {spread:.3%}, below the noise; {facts}",
            )
        expected = spread / np.hypot(spread, evidence.noise_sd) * np.sqrt(chosen.gain.size)
        if best.score < params.min_score < expected / 2 and evidence.pattern_sd**2 < 0.1 * spread**2:
            return Decision(
                ones,
                "none",
                f"the movies show no trace of the given gain ({facts}; {expected:.0f} σ expected): they are "
                "corrected already",
            )
    raise InputError(
        f"the orientation of the gain reference is ambiguous: {facts}; {params.min_score:g} σ and "
        f"{params.min_margin:g} times are asked for, "
        f"and the gain varies by {spread:.2%}, so it matters. Give more movies, the right gain, or set "
        "estimate_gain.orientation and .sense."
    )


def _with(decision: Decision, reason: str) -> Decision:
    return Decision(decision.gain, decision.source, reason, decision.orientation, decision.sense)


def residual_statistics(residual: np.ndarray, good: np.ndarray, evidence: Reproducibility | None) -> dict[str, Any]:
    """Return the statistics of the residual gain [y, x] over pixels, and its spread over rows and columns."""
    values = residual[good]
    percentiles = np.percentile(values, [2.5, 25, 50, 75, 97.5])
    rows = np.where(good, residual - 1, 0).sum(axis=1) / np.maximum(good.sum(axis=1), 1)
    columns = np.where(good, residual - 1, 0).sum(axis=0) / np.maximum(good.sum(axis=0), 1)
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "sd": float(values.std(dtype=np.float64)),
        "sd_expected_of_noise": None if evidence is None else evidence.noise_sd,
        "min": float(values.min()),
        "max": float(values.max()),
        "percentiles": dict(zip(("2.5", "25", "50", "75", "97.5"), map(float, percentiles), strict=True)),
        "row_mean_sd": float(rows.std()),
        "column_mean_sd": float(columns.std()),
    }


def main(inputs: dict[str, Any], outputs: dict[str, Path], params: EstimateGain, context: Context) -> None:
    """Estimate gain and defects from all movies; inputs ``movies`` (tables), ``gain`` (optional)."""
    tables = inputs["movies"] if isinstance(inputs["movies"], list) else [inputs["movies"]]
    table = concatenate([read_table(path, "movies") for path in tables])
    entries = list(movie_entries(table).values())
    sums = sum_frames(entries, params, context)
    total = sums.total
    sigma = params.background_sigma_px
    field = flat_field(total, sigma_px=sigma)
    evidence = reproducibility(*sums.halves, sigma_px=sigma, good=field.good) if sums.movies > 1 else None
    estimated = (
        1.0 / np.maximum(field.response, np.float32(0.05)) if sums.ideal is None else rank_gain(sums.ideal, total)
    )
    given = read_reference(inputs["gain"]) if inputs.get("gain") else None
    scores = (
        score_orientations(given, field.response, field.good, sigma_px=sigma, workers=context.threads)
        if given is not None
        else []
    )
    decision = decide_gain(given, scores, field, evidence, params)
    if decision.source == "estimated":
        decision = Decision(estimated, decision.source, decision.reason)
    context.log.info("%s: gain %s: %s", context.step, decision.source, decision.reason)

    corrected = total * decision.gain
    alive = field.good & (decision.gain > 0)
    ratio = corrected / np.maximum(smooth_background(corrected, alive, sigma), np.float32(1e-20))
    dead, hot = find_defects(ratio, decision.gain, hot_sigma=params.hot_sigma)
    residual = flat_field(corrected, sigma_px=sigma, good=~(dead | hot))
    pixel_size_A = entries[0].pixel_size_A
    write_image(outputs["estimated"], estimated.astype(np.float32), pixel_size_A)
    write_image(outputs["residual"], residual.response, pixel_size_A)
    # zeros mark defects for every program that reads the gain
    write_image(outputs["gain"], np.where(dead | hot, 0, decision.gain).astype(np.float32), pixel_size_A)
    write_defects(outputs["defects"], dead, hot)
    summary = {
        "movies": sums.movies,
        "frames": sums.frames,
        "method": params.method,
        "source": decision.source,
        "reason": decision.reason,
        "transform": None
        if decision.orientation is None
        else {
            "orientation": decision.orientation,
            "mirror": decision.orientation.startswith("mirror"),
            "rot90": int(decision.orientation.rsplit("rot", 1)[1]),
            "inverted": decision.sense == "divide",
            "shift_yx_px": [0, 0],
        },
        "scores": [asdict(s) for s in scores],
        "score_margin": scores[0].score / scores[1].score if len(scores) > 1 and scores[1].score > 0 else None,
        "fixed_pattern_sd": None if evidence is None else evidence.pattern_sd,
        "estimate_noise_sd": None if evidence is None else evidence.noise_sd,
        "electrons_per_pixel": None if evidence is None else evidence.electrons_per_pixel,
        "mean_counts_per_frame": float(total[field.good].mean(dtype=np.float64)) / max(sums.frames, 1),
        "residual": residual_statistics(residual.response, residual.good, evidence),
        "dead_pixels": int(dead.sum()),
        "hot_pixels": int(hot.sum()),
    }
    atomic_write(outputs["summary"], json.dumps(summary, indent=1) + "\n")
