"""Decide which gain is used: the given one in its best orientation, the one estimated from the movies, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cryopipe.config.movies import EstimateGain
from cryopipe.errors import InputError
from cryopipe.movies.gain.flat_field import FlatField, Reproducibility, robust_center_and_sd, second_differences
from cryopipe.movies.gain.orientation import OrientationScore, as_correction

#: A gain does not matter if its variance is below this share of that of the shot noise in the sum of all frames used.
_MATERIAL_SHARE = 0.1
#: Movies have no trace of the given gain if their pattern has less than this share of the gain's variance.
_TRACE_SHARE = 0.1
#: Lower limit of the response before it is inverted. A choice: the responses of working pixels differ by tens of percent, and
#: none of them needs an amplification of more than twenty.
_SMALLEST_RESPONSE = 0.05


@dataclass(frozen=True)
class GainDecision:
    """The decision: the multiplicative gain to use [y, x], its source and the reason."""

    gain: np.ndarray
    source: str
    reason: str
    orientation: str | None = None
    sense: str | None = None


def decide_gain(
    given: np.ndarray | None,
    scores: Sequence[OrientationScore],
    field: FlatField,
    evidence: Reproducibility | None,
    params: EstimateGain,
    *,
    one_movie: bool = False,
) -> GainDecision:
    """Choose between the given gain (in its best orientation), the estimated one and none.

    Parameters
    ----------
    given : ndarray ``[y', x']`` or None
        The given gain reference, in its own orientation.
    scores : sequence of OrientationScore
        Scores of the given gain, best first. Empty without one.
    field : FlatField
        Response estimated from the movies.
    evidence : Reproducibility or None
        Fixed pattern and noise of the response. None with a single frame.
    params : EstimateGain
        Limits, and an orientation or sense fixed by the user.
    one_movie : bool
        There is one movie only. Its frames have the same specimen, so the estimated gain is never used.

    Raises
    ------
    InputError
        The orientation is ambiguous although the gain matters, or it fits only when shifted.
    """
    ones = np.ones_like(field.response)
    if given is None:
        return _without_reference(field, evidence, one_movie, ones)
    allowed = [s for s in scores if params.orientation in ("auto", s.orientation) and params.sense in ("auto", s.sense)]
    if not allowed:
        raise InputError(
            f"orientation {params.orientation} does not fit: the gain has shape {given.shape} and the frames "
            f"{field.response.shape} (y, x). Correct estimate_gain.orientation."
        )
    best = allowed[0]
    chosen = GainDecision(
        as_correction(given, orientation=best.orientation, sense=best.sense), "given", "", best.orientation, best.sense
    )
    if params.orientation != "auto" and params.sense != "auto":
        return replace(chosen, reason=f"orientation and sense are set by the user (score {best.score:.1f} σ)")
    others = [s for s in allowed[1:] if s.score > 0]
    margin = best.score / others[0].score if others else np.inf
    if best.score >= params.min_score and margin >= params.min_margin:
        if best.shift_yx_px != (0, 0):
            y, x = best.shift_yx_px
            raise InputError(
                f"the gain reference fits the movies only in orientation {best.orientation} with a shift by {x}, {y} pixels "
                "(x, y), because it was cropped or padded differently. Give the gain of the same area of the camera."
            )
        return replace(chosen, reason=f"score {best.score:.1f} σ, {margin:.1f} times the second best")
    return _ambiguous(chosen, best, margin, evidence, params, one_movie)


def estimated_gain(field: FlatField) -> np.ndarray:
    """Return the multiplicative gain [y, x] that makes the response even."""
    result: np.ndarray = 1.0 / np.maximum(field.response, np.float32(_SMALLEST_RESPONSE))
    return result


def _without_reference(
    field: FlatField, evidence: Reproducibility | None, one_movie: bool, ones: np.ndarray
) -> GainDecision:
    """Decide without a given gain. The estimate removes the pattern but adds its noise, 1/√N for N electrons."""
    if evidence is None:
        return GainDecision(ones, "none", "no gain was given, and one movie alone cannot tell gain from specimen")
    pattern, noise = evidence.pattern_sd, evidence.noise_sd
    if pattern <= evidence.smallest_pattern_sd:
        return GainDecision(
            ones,
            "none",
            f"no gain was given, and the movies show no fixed pattern (below {evidence.smallest_pattern_sd:.2%}): they are "
            "already corrected, or all pixels of their camera have the same response",
        )
    text = (
        f"fixed pattern {pattern:.2%}, noise of its estimate {noise:.2%} from {evidence.electrons_per_pixel:.0f} electrons per "
        f"pixel; {1 / pattern**2:.0f} are needed"
    )
    if one_movie:
        return GainDecision(
            ones, "none", f"no gain was given, and one movie alone cannot tell gain from specimen ({text})"
        )
    if pattern > noise:
        return GainDecision(estimated_gain(field), "estimated", f"no gain was given; {text}")
    return GainDecision(
        ones, "none", f"no gain was given, and the estimated one would add more noise than it removes ({text})"
    )


def _ambiguous(
    chosen: GainDecision,
    best: OrientationScore,
    margin: float,
    evidence: Reproducibility | None,
    params: EstimateGain,
    one_movie: bool,
) -> GainDecision:
    """Decide when no orientation is clearly the best: the gain does not matter, or the movies are corrected, or stop."""
    live = chosen.gain[chosen.gain > 0]
    spread = float(np.std(live, dtype=np.float64))
    facts = f"best score {best.score:.1f} σ ({best.orientation}, {best.sense}), {margin:.1f} times the second best"
    if evidence is not None:
        if (spread / evidence.noise_sd) ** 2 < _MATERIAL_SHARE:
            return replace(
                chosen,
                reason=f"orientation not found, but the gain varies by only {spread:.3%}, below the noise; {facts}",
            )
        # the pattern that one movie shows does not include lines
        seen = robust_center_and_sd(second_differences(chosen.gain).ravel())[1] if one_movie else spread
        expected = seen / np.hypot(seen, evidence.noise_sd) * np.sqrt(chosen.gain.size)
        if best.score < params.min_score < expected / 2 and evidence.pattern_sd**2 < _TRACE_SHARE * seen**2:
            return GainDecision(
                np.ones_like(chosen.gain),
                "none",
                f"the movies show no trace of the given gain ({facts}; {expected:.0f} σ expected): they are "
                "already corrected",
            )
    raise InputError(
        f"the orientation of the gain reference is ambiguous: {facts}, but {params.min_score:g} σ and "
        f"{params.min_margin:g} times are required. "
        f"The gain varies by {spread:.2%}, so the orientation matters. Give more movies or the right gain, or set "
        "estimate_gain.orientation and estimate_gain.sense."
    )
