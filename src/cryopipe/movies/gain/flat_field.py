"""The camera's response from the sum of many frames: each pixel divided by its smooth surroundings.

A pixel with relative response m under local illumination B counts T ~ Poisson(m B), so that m = T / B is the maximum
likelihood estimate, with a relative error of 1/√N for N counted electrons. Specimen and illumination vary slowly from
pixel to pixel and differ between movies. The fixed pattern of the camera varies quickly and is the same in all movies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from cryopipe.errors import InputError
from cryopipe.imaging.statistics import robust_sd
from cryopipe.kernels.gain.blocks import block_sums, interpolate

#: Gaussian noise exceeds 6 standard deviations with a probability of 2e-9: less than once in the 10⁸ pixels of a camera.
_OUTLIER_SIGMA = 6.0
#: Chance reaches 5 standard deviations once in 3 million data sets.
_SURE_SIGMA = 5.0
#: Of images with more pixels than the first number only every n-th pixel is used, for speed; n is the second number. 17 does
#: not divide the side of any common camera (3838, 4092, 4096, 5760 px), so pixels of all columns are used.
_LARGE, _THINNING = 4_000_000, 17
#: If the median count per pixel is below this, a pixel without counts may be chance.
_ZERO_IS_CHANCE = 8.0
#: Least share of pixels with counts. With fewer, a response cannot be estimated.
_FEWEST_POSITIVE = 0.05


@dataclass(frozen=True)
class FlatField:
    """Relative response of every pixel.

    Attributes
    ----------
    response : ndarray ``[y, x]`` float32
        Response with mean 1 over good pixels. It is 1 where ``good`` is False.
    good : ndarray ``[y, x]`` bool
        Pixels whose response is near that of their surroundings.
    """

    response: np.ndarray
    good: np.ndarray


@dataclass(frozen=True)
class Reproducibility:
    """Fixed pattern and noise of a response map, from two halves of the movies (or of the frames of a single movie).

    Attributes
    ----------
    pattern_sd : float
        Standard deviation of the pattern that both halves have: the fixed pattern of the camera (relative).
    noise_sd : float
        Standard deviation of the noise of the map made from all frames (relative).
    smallest_pattern_sd : float
        Smallest detectable pattern (5 standard deviations of the halves' covariance).
    """

    pattern_sd: float
    noise_sd: float
    smallest_pattern_sd: float

    @property
    def electrons_per_pixel(self) -> float:
        """Number of Poisson events per pixel that would give this noise."""
        return 1.0 / max(self.noise_sd, 1e-12) ** 2


def smooth_background(image: np.ndarray, good: np.ndarray, sigma_px: float) -> np.ndarray:
    """Return the smooth part of ``image`` [y, x] from its ``good`` pixels (normalised convolution), float32.

    Three box averages, mirrored at the edges, approximate a Gaussian of ``sigma_px`` (within 6 %). They are applied to
    means over blocks of an eighth of ``sigma_px``, and the result is interpolated between the blocks.
    """
    step = max(int(sigma_px // 8), 1)
    values, weights = block_sums(np.ascontiguousarray(image, dtype=np.float32), np.ascontiguousarray(good), step)
    sigma = sigma_px / step
    width = 2 * round((np.sqrt(4.0 * sigma**2 + 1.0) - 1.0) / 2.0) + 1
    for _ in range(3):
        ndimage.uniform_filter(values, width, output=values, mode="reflect")
        ndimage.uniform_filter(weights, width, output=weights, mode="reflect")
    coarse = values / np.maximum(weights, np.float32(1e-3 * step**2))
    return interpolate(coarse, (image.shape[0], image.shape[1]), step)


def robust_center_and_sd(values: np.ndarray) -> tuple[float, float]:
    """Return median and scaled median absolute deviation of ``values`` [n]. If most are equal: the standard deviation."""
    # the error of the median of 4,000,000 / 17 values is 1/390 of their deviation, far smaller than any limit
    values = values[:: _THINNING if values.size > _LARGE else 1]
    center = float(np.median(values))
    sd = robust_sd(values, center)
    return center, sd if sd > 0 else float(np.std(values))


def deviations(total: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return √total - √expected [y, x]. In this the noise of counts is nearly Gaussian and the same at all exposures."""
    result: np.ndarray = np.sqrt(np.maximum(total, 0))
    result -= np.sqrt(np.maximum(expected, 0))
    return result


def flat_field(total: np.ndarray, *, sigma_px: float, good: np.ndarray | None = None) -> FlatField:
    """Estimate the response of every pixel from the sum of frames.

    Parameters
    ----------
    total : ndarray ``[y, x]``
        Sum of frames (counts, or any unit proportional to them). Most pixels must be positive.
    sigma_px : float
        Width of the Gaussian that defines the surroundings.
    good : ndarray ``[y, x]`` bool, optional
        Pixels to use. By default those within 6 robust standard deviations of their surroundings.

    Raises
    ------
    InputError
        The frames have no counts.
    """
    values = np.asarray(total, dtype=np.float32)
    positive = np.isfinite(values) & (values > 0)
    share = positive.mean()
    if share < _FEWEST_POSITIVE:
        raise InputError(
            f"only {share:.1%} of the pixels of the summed frames are positive, so a gain cannot be estimated. "
            "Give more frames, or add the camera's offset."
        )
    middle = float(np.median(values[positive][::_THINNING]))
    usable = positive if middle >= _ZERO_IS_CHANCE else np.isfinite(values) & (values >= 0)
    for _ in range(0 if good is not None else 2):
        found = deviations(values, smooth_background(values, usable, sigma_px))
        center, sd = robust_center_and_sd(found[usable])
        usable &= np.abs(found - center) <= _OUTLIER_SIGMA * sd
    usable = usable if good is None else usable & good
    background = smooth_background(values, usable, sigma_px)
    response = np.ones_like(values)
    np.divide(values, np.maximum(background, np.float32(1e-20)), out=response, where=usable)
    number = np.count_nonzero(usable)
    response /= np.float32((response.sum(dtype=np.float64) - response.size + number) / max(number, 1))
    response[~usable] = 1
    return FlatField(response, usable)


def reproducibility(
    first: np.ndarray, second: np.ndarray, *, sigma_px: float, good: np.ndarray, fine: bool = False
) -> Reproducibility:
    """Compare the response maps of two independent sums of frames ``[y, x]``.

    Parameters
    ----------
    first, second : ndarray ``[y, x]``
        Sums over different movies, or over different frames of one movie.
    sigma_px : float
        As for :func:`flat_field`.
    good : ndarray ``[y, x]`` bool
        Pixels to use.
    fine : bool
        Compare only mixed second differences of neighbouring pixels. All frames of one movie have the same specimen, but
        it has almost no power there. A pattern that differs from pixel to pixel keeps its deviation. Lines are not seen.
    """
    maps = [flat_field(total, sigma_px=sigma_px, good=good).response for total in (first, second)]
    if fine:
        maps = [second_differences(m) for m in maps]
        good = ndimage.minimum_filter(good, 3)[1:-1, 1:-1]
    counts = [float(total.sum(dtype=np.float64)) for total in (first, second)]
    one, two = (m[good] - np.float32(m[good].mean(dtype=np.float64)) for m in maps)
    covariance = float(np.mean(one * two, dtype=np.float64))
    # var(first - second) = 1/N1 + 1/N2; the map of both has 1/(N1 + N2)
    noise = float(np.var(one - two, dtype=np.float64)) * counts[0] * counts[1] / (counts[0] + counts[1]) ** 2
    chance = float(one.std(dtype=np.float64) * two.std(dtype=np.float64)) / np.sqrt(max(one.size, 1))
    return Reproducibility(
        pattern_sd=float(np.sqrt(max(covariance, 0.0))),
        noise_sd=float(np.sqrt(noise)),
        smallest_pattern_sd=float(np.sqrt(_SURE_SIGMA * chance)),
    )


def second_differences(image: np.ndarray) -> np.ndarray:
    """Return ``image`` [y, x] filtered with [1, -2, 1]/√6 along y and x, without the edge pixels: white noise keeps its sd."""
    along_y = image[:-2] - 2 * image[1:-1] + image[2:]
    result: np.ndarray = (along_y[:, :-2] - 2 * along_y[:, 1:-1] + along_y[:, 2:]) / np.float32(6)
    return result
