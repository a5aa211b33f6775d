"""Orientation of a gain reference, and whether it multiplies or divides, by correlation with the gain of the movies.

The principle (8 orientations, the sign of the extreme correlation) is that of Sorzano et al. 2018, J. Struct. Biol.
203:90, doi:10.1016/j.jsb.2018.03.012. The score is the extreme of the circular cross-correlation of the high-passed
images, in units of the (robust) standard deviation of the correlation map. Wrong orientations reach 5 to 6 by chance,
the extreme of millions of Gaussian numbers. The right one reaches hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from cryopipe.errors import InputError
from cryopipe.movies.gain.flat_field import robust_center_and_sd, smooth_background

ORIENTATIONS = tuple(f"{mirror}rot{angle}" for mirror in ("", "mirror_") for angle in (0, 90, 180, 270))
SENSES = ("multiply", "divide")
#: Divisors below this share of their median mark dead pixels. A choice: the gains of working pixels differ by tens of percent,
#: and a pixel amplified a hundredfold would add only noise.
_SMALLEST_GAIN = 0.01


@dataclass(frozen=True)
class OrientationScore:
    """Score of one orientation and sense. ``shift_yx_px`` is the position of the extreme of the correlation."""

    orientation: str
    sense: str
    score: float
    shift_yx_px: tuple[int, int]


def turn(image: np.ndarray, orientation: str) -> np.ndarray:
    """Return ``image`` [y, x] mirrored along x if ``orientation`` has ``mirror``, then rotated by ``numpy.rot90``."""
    if orientation not in ORIENTATIONS:
        raise InputError(f"{orientation!r} is not an orientation; choose one of {', '.join(ORIENTATIONS)}.")
    mirrored = image[:, ::-1] if orientation.startswith("mirror") else image
    return np.ascontiguousarray(np.rot90(mirrored, int(orientation.rsplit("rot", 1)[1]) // 90))


def possible_orientations(gain_shape: tuple[int, int], frame_shape: tuple[int, int]) -> list[str]:
    """Return the orientations in which a gain of ``gain_shape`` covers frames of ``frame_shape`` (both y, x).

    Raises
    ------
    InputError
        There is no such orientation.
    """
    upright = tuple(gain_shape) == tuple(frame_shape)
    sideways = tuple(gain_shape[::-1]) == tuple(frame_shape)
    fitting = [o for o in ORIENTATIONS if (upright if o.endswith(("rot0", "rot180")) else sideways)]
    if not fitting:
        raise InputError(
            f"the gain reference has {gain_shape[1]} x {gain_shape[0]} pixels (x, y), but the frames have "
            f"{frame_shape[1]} x {frame_shape[0]}. Give the gain of this camera, in this mode (counting or super-resolution)."
        )
    return fitting


def high_passed(image: np.ndarray, good: np.ndarray, sigma_px: float) -> np.ndarray:
    """Return ``image`` [y, x] over its smooth background: rows and columns have mean 0, all has deviation 1, bad pixels 0."""
    background = smooth_background(image, good, sigma_px)
    ratio = np.zeros(image.shape, dtype=np.float32)
    np.divide(image, background, out=ratio, where=good & (np.abs(background) > 1e-12), casting="same_kind")
    number = max(np.count_nonzero(good), 1)
    ratio -= np.float32(ratio.sum(dtype=np.float64) / number)
    ratio *= good
    # a constant along a line (columns, tile borders) looks the same after mirroring along the line, so it is subtracted
    for axis in (0, 1):
        lines = ratio.sum(axis=axis, dtype=np.float64) / np.maximum(good.sum(axis=axis), 1)
        ratio -= np.expand_dims(lines, axis).astype(np.float32)
    ratio *= good
    deviation = float(np.sqrt(np.square(ratio).sum(dtype=np.float64) / number))
    if deviation > 0:
        ratio /= np.float32(deviation)
    return ratio


def score_orientations(
    gain: np.ndarray, response: np.ndarray, good: np.ndarray, *, sigma_px: float, threads: int = 1
) -> list[OrientationScore]:
    """Score every orientation and sense of ``gain`` against the ``response`` of the movies, best first.

    Parameters
    ----------
    gain : ndarray ``[y', x']``
        The given gain: multiplicative or divisive, in any orientation. Zeros are dead pixels.
    response, good : ndarray ``[y, x]``
        From :func:`cryopipe.movies.gain.flat_field.flat_field`.
    sigma_px : float
        Width of a Gaussian. A background of this width is divided out first, so that illumination does not count.
    threads : int
        Threads of the Fourier transforms.

    Returns
    -------
    list of OrientationScore
        16 scores for square frames, 8 for others.
    """
    correction = high_passed(1.0 / np.maximum(response, np.float32(0.05)), good, sigma_px)
    target = scipy.fft.rfft2(correction, workers=threads)
    pattern = high_passed(gain, np.isfinite(gain) & (np.abs(gain) > 1e-6), sigma_px)
    scores = []
    for orientation in possible_orientations(gain.shape, response.shape):
        spectrum = target * np.conj(scipy.fft.rfft2(turn(pattern, orientation), workers=threads))
        correlation = scipy.fft.irfft2(spectrum, s=response.shape, workers=threads)
        center, sd = robust_center_and_sd(correlation[::3, ::3])
        for sense, extreme in zip(SENSES, (correlation.argmax(), correlation.argmin()), strict=True):
            y, x = (int(i) for i in np.unravel_index(extreme, response.shape))
            score = abs(float(correlation[y, x]) - center) / sd if sd > 0 else 0.0
            wrapped = [i if i <= n // 2 else i - n for i, n in zip((y, x), response.shape, strict=True)]
            scores.append(OrientationScore(orientation, sense, score, (wrapped[0], wrapped[1])))
    return sorted(scores, key=lambda s: -s.score)


def as_correction(gain: np.ndarray, *, orientation: str, sense: str) -> np.ndarray:
    """Return the multiplicative gain in the frames' orientation, mean 1 over live pixels, 0 at dead ones."""
    turned = turn(np.asarray(gain, dtype=np.float32), orientation)
    live = np.isfinite(turned) & (turned != 0)
    if sense == "divide":
        # A divisor near zero is a pixel that hardly counts. It is dead, and must not be amplified a hundredfold.
        live &= np.abs(turned) >= _SMALLEST_GAIN * abs(float(np.median(turned[live])))
        turned = np.divide(np.float32(1), turned, out=np.zeros_like(turned), where=live)
    if not live.any():
        raise InputError("the gain reference is zero everywhere. Give the gain of this camera.")
    return np.where(live, turned / turned[live].mean(dtype=np.float64), 0).astype(np.float32)
