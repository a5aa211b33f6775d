"""Step ``estimate_gain``: the camera's gain from the movies, the orientation and sense of a given gain, and defects.

The response of the camera is the sum of the movies' frames divided by its smooth background (`gain.flat_field`). A given
gain is compared with it in 8 orientations and both senses (`gain.orientation`). `gain.decision` decides which gain is
used. The pattern that remains after correction (residual) is measured in the same way.

References
----------
Sorzano et al. 2018, J. Struct. Biol. 203:90, doi:10.1016/j.jsb.2018.03.012; Afanasyev et al. 2015, Sci. Rep. 5:10317.
Known limits: structure that is at the same place in all movies enters the estimate. With a single movie, fixed pattern
and specimen (such as a carbon edge) cannot be told apart, so its estimate is never used for correction.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from cryopipe.config.movies import EstimateGain
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.io.atomic import atomic_write
from cryopipe.io.mrc import write_image
from cryopipe.io.star import concatenate, read_table
from cryopipe.movies.gain.decision import GainDecision, decide_gain, estimated_gain
from cryopipe.movies.gain.defects import find_defects, write_defects
from cryopipe.movies.gain.flat_field import FlatField, Reproducibility, flat_field, reproducibility, smooth_background
from cryopipe.movies.gain.movie_totals import MovieTotals, sum_frames
from cryopipe.movies.gain.orientation import OrientationScore, score_orientations
from cryopipe.movies.gain.rank import rank_gain
from cryopipe.movies.movie_list import movie_entries, read_reference


def defects_and_residual(
    total: np.ndarray, field: FlatField, decision: GainDecision, params: EstimateGain
) -> tuple[np.ndarray, np.ndarray, FlatField]:
    """Find the defects in the summed frames, and measure the response that remains after correction by the gain.

    Parameters
    ----------
    total : ndarray ``[y, x]`` float32
        Sum of all frames, without the gain.
    field : FlatField
        Response of the pixels from the same sum. Its good pixels give the background.
    decision : GainDecision
        The gain that is used, and its source. A pixel never deviates from its own estimate, so for an estimated gain the
        defects are found in the sum without any gain.
    params : EstimateGain
        ``background_sigma_px`` and ``hot_sigma`` are used.

    Returns
    -------
    dead, hot : ndarray ``[y, x]`` bool
        Defects.
    residual : FlatField
        Response of the corrected sum. It is 1 where the gain corrects everything.
    """
    # no pixel deviates from its own estimate, so defects are then found in the sum without gain
    gain = np.ones_like(decision.gain) if decision.source == "estimated" else decision.gain
    corrected = total * gain
    expected = smooth_background(corrected, field.good & (gain > 0), params.background_sigma_px)
    expected /= np.where(gain > 0, gain, 1)
    dead, hot = find_defects(total, expected, gain, hot_sigma=params.hot_sigma)
    if decision.source == "estimated":
        corrected = total * decision.gain
    return dead, hot, flat_field(corrected, sigma_px=params.background_sigma_px, good=~(dead | hot))


def _scores(
    path: Path | None, field: FlatField, params: EstimateGain, context: Context
) -> tuple[np.ndarray | None, list[OrientationScore]]:
    """Return the given gain, if any, and the scores of its orientations, best first."""
    if not path:
        return None, []
    given = read_reference(path)
    try:
        return given, score_orientations(
            given, field.response, field.good, sigma_px=params.background_sigma_px, threads=context.threads
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


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


def summarise(
    sums: MovieTotals,
    decision: GainDecision,
    scores: Sequence[OrientationScore],
    evidence: Reproducibility | None,
    params: EstimateGain,
) -> dict[str, Any]:
    """Return the part of the step's summary that describes the estimate and the decision, ready for JSON.

    Parameters
    ----------
    sums : MovieTotals
        Only its numbers of movies and frames are used.
    decision : GainDecision
        The gain that is used, its source and the reason.
    scores : sequence of OrientationScore
        Scores of the given gain, best first. Empty without a given gain.
    evidence : Reproducibility or None
        Fixed pattern and noise of the estimate. None if there is a single frame.
    params : EstimateGain
        ``method`` is used.
    """
    transform = None
    if decision.orientation is not None:
        transform = {
            "orientation": decision.orientation,
            "mirror": decision.orientation.startswith("mirror"),
            "rot90": int(decision.orientation.rsplit("rot", 1)[1]),
            "inverted": decision.sense == "divide",
            "shift_yx_px": [0, 0],
        }
    return {
        "movies": sums.movies,
        "frames": sums.frames,
        "method": params.method,
        "source": decision.source,
        "reason": decision.reason,
        "transform": transform,
        "scores": [asdict(s) for s in scores],
        "score_margin": scores[0].score / scores[1].score if len(scores) > 1 and scores[1].score > 0 else None,
        "fixed_pattern_sd": None if evidence is None else evidence.pattern_sd,
        "estimate_noise_sd": None if evidence is None else evidence.noise_sd,
        "electrons_per_pixel": None if evidence is None else evidence.electrons_per_pixel,
    }


def main(inputs: dict[str, Any], outputs: dict[str, Path], params: EstimateGain, context: Context) -> None:
    """Estimate gain and defects from all movies.

    Inputs: ``movies`` (tables) and ``gain`` (optional). Outputs: ``estimated``, ``residual`` and ``gain`` (MRC), ``defects``
    (TSV) and ``summary`` (JSON).
    """
    tables = inputs["movies"] if isinstance(inputs["movies"], list) else [inputs["movies"]]
    entries = list(movie_entries(concatenate([read_table(path, "movies") for path in tables])).values())
    sums = sum_frames(entries, params, context)
    total, one_movie = sums.total, sums.movies == 1
    sigma = params.background_sigma_px
    field = flat_field(total, sigma_px=sigma)
    evidence = None
    if len(sums.halves) == 2:
        evidence = reproducibility(*sums.halves, sigma_px=sigma, good=field.good, fine=one_movie)
    sums.halves.clear()  # two images less in memory
    estimated = estimated_gain(field) if sums.ideal is None else rank_gain(sums.ideal, total)
    given, scores = _scores(inputs.get("gain"), field, params, context)
    try:
        decision = decide_gain(given, scores, field, evidence, params, one_movie=one_movie)
    except InputError as error:
        raise InputError(f"{inputs['gain']}: {error}") from error
    if decision.source == "estimated":
        decision = replace(decision, gain=estimated)
    context.log.info("%s: gain %s: %s", context.step, decision.source, decision.reason)

    dead, hot, residual = defects_and_residual(total, field, decision, params)
    pixel_size_A = entries[0].pixel_size_A
    write_image(outputs["estimated"], estimated.astype(np.float32), pixel_size_A)
    write_image(outputs["residual"], residual.response, pixel_size_A)
    # zeros mark defects for every program that reads the gain
    write_image(outputs["gain"], np.where(dead | hot, 0, decision.gain).astype(np.float32), pixel_size_A)
    write_defects(outputs["defects"], dead, hot)
    summary = summarise(sums, decision, scores, evidence, params) | {
        "mean_counts_per_frame": float(total[field.good].mean(dtype=np.float64)) / max(sums.frames, 1),
        "residual": residual_statistics(residual.response, residual.good, evidence),
        "dead_pixels": int(dead.sum()),
        "hot_pixels": int(hot.sum()),
    }
    atomic_write(outputs["summary"], json.dumps(summary, indent=1) + "\n")
