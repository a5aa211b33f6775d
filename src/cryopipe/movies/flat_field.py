"""The camera's response from the sum of many frames: each pixel over its smooth surroundings.

A pixel with relative response m under local illumination B counts T ~ Poisson(m B), so that m = T / B is the maximum
likelihood estimate, with a relative error of 1/√N for N counted electrons. Specimen and illumination vary slowly
against one pixel and differ between movies; the fixed pattern of the camera does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from cryopipe.errors import InputError

MAD_TO_SD = 1.4826
_OUTLIER_SIGMA = 6.0


@dataclass(frozen=True)
class FlatField:
    """Relative response of every pixel.

    Attributes
    ----------
    response : ndarray ``[y, x]`` float32
        Mean 1 over good pixels; 1 where ``good`` is False.
    good : ndarray ``[y, x]`` bool
        Pixels whose response is near that of their surroundings.
    """

    response: np.ndarray
    good: np.ndarray


@dataclass(frozen=True)
class Reproducibility:
    """Fixed pattern and noise of a response map, from two halves of the movies.

    Attributes
    ----------
    pattern_sd : float
        Standard deviation of what the halves share: the camera's fixed pattern (relative).
    noise_sd : float
        Standard deviation of the noise of the map made from all movies (relative).
    """

    pattern_sd: float
    noise_sd: float

    @property
    def electrons_per_pixel(self) -> float:
        """Number of Poisson events per pixel that would give this noise."""
        return 1.0 / max(self.noise_sd, 1e-12) ** 2


def smooth(image: np.ndarray, sigma_px: float) -> np.ndarray:
    """Return ``image`` [y, x] after three box averages, close to a Gaussian of ``sigma_px``, mirrored at the edges."""
    width = 2 * round((np.sqrt(4.0 * sigma_px**2 + 1.0) - 1.0) / 2.0) + 1
    result = image.astype(np.float32)
    for _ in range(3):
        ndimage.uniform_filter(result, width, output=result, mode="mirror")
    return result


def smooth_background(image: np.ndarray, good: np.ndarray, sigma_px: float) -> np.ndarray:
    """Return the smooth part of ``image`` [y, x] as seen by its ``good`` pixels (normalised convolution), float32."""
    weight = smooth(good, sigma_px)
    return smooth(np.where(good, image, 0), sigma_px) / np.maximum(weight, np.float32(1e-3))


def robust_center_and_sd(values: np.ndarray) -> tuple[float, float]:
    """Return median and scaled median absolute deviation of ``values`` (the plain one where most are equal)."""
    center = float(np.median(values))
    sd = MAD_TO_SD * float(np.median(np.abs(values - center)))
    return center, sd if sd > 0 else float(np.std(values))


def flat_field(total: np.ndarray, *, sigma_px: float, good: np.ndarray | None = None) -> FlatField:
    """Estimate the response of every pixel from the sum of frames.

    Parameters
    ----------
    total : ndarray ``[y, x]``
        Sum of frames (counts, or any unit proportional to them), not negative on the whole.
    sigma_px : float
        Width of the Gaussian that defines the surroundings.
    good : ndarray ``[y, x]`` bool, optional
        Pixels to use; without it those within 6 robust standard deviations of their surroundings are found.

    Raises
    ------
    InputError
        The frames hold no counts.
    """
    values = np.asarray(total, dtype=np.float32)
    usable = np.isfinite(values) & (values > 0)
    if usable.mean() < 0.5:
        raise InputError(
            f"only {usable.mean():.0%} of the pixels of the summed frames are positive: nothing to estimate a "
            "gain from. "
            "Give more frames, or add the camera's offset."
        )
    # Deviations are judged on the square root of counts, where Poisson noise is the same everywhere and nearly
    # Gaussian.
    for _ in range(0 if good is not None else 2):
        root = np.sqrt(np.where(usable, values, 0) / np.maximum(smooth_background(values, usable, sigma_px), 1e-20))
        center, sd = robust_center_and_sd(root[usable])
        usable &= np.abs(root - center) <= _OUTLIER_SIGMA * sd
    usable = usable if good is None else usable & good
    background = smooth_background(values, usable, sigma_px)
    response = np.where(usable, values / np.maximum(background, np.float32(1e-20)), np.float32(1))
    response[usable] /= response[usable].mean(dtype=np.float64)
    return FlatField(response.astype(np.float32, copy=False), usable)


def reproducibility(first: np.ndarray, second: np.ndarray, *, sigma_px: float, good: np.ndarray) -> Reproducibility:
    """Compare the response maps of two independent sums of frames ``[y, x]`` (different movies)."""
    maps = [flat_field(total, sigma_px=sigma_px, good=good).response[good] for total in (first, second)]
    counts = [float(total.sum(dtype=np.float64)) for total in (first, second)]
    deviations = [m.astype(np.float64) - m.mean(dtype=np.float64) for m in maps]
    covariance = float(np.mean(deviations[0] * deviations[1]))
    # var(first - second) = 1/N1 + 1/N2; the map of both has 1/(N1 + N2)
    difference = float(np.var(deviations[0] - deviations[1]))
    noise = difference * counts[0] * counts[1] / (counts[0] + counts[1]) ** 2
    return Reproducibility(pattern_sd=float(np.sqrt(max(covariance, 0.0))), noise_sd=float(np.sqrt(noise)))
