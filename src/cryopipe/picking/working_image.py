"""A micrograph prepared for picking: cleaned, inverted, with coarse pixels and with measured shot noise and roughness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.ndimage

from cryopipe.errors import InputError
from cryopipe.imaging.fourier import radial_frequency, resample
from cryopipe.imaging.statistics import robust_sd


@dataclass(frozen=True, eq=False)
class WorkingImage:
    """The image that the filters of the pickers work on.

    Attributes
    ----------
    image : float32 ``[y, x]``
        High-passed image with bright particles, mean 0 and standard deviation 1 (by the median absolute deviation).
    pixel_size_A : float
        Pixel size of ``image`` along x. That along y differs by rounding, less than 1 %.
    scale_xy : (float, float)
        Exact number of micrograph pixels per working pixel, along x and y.
    noise_sd : float
        Standard deviation of the shot noise of the micrograph in ``image``.
    roughness : float32 ``[y, x]``
        Local contrast: standard deviation of ``image`` in a window of about a particle.
    usable : bool ``[y, x]``
        Pixels without carbon, large ice and holes. ``image`` is zero elsewhere.
    """

    image: np.ndarray
    pixel_size_A: float
    scale_xy: tuple[float, float]
    noise_sd: float
    roughness: np.ndarray
    usable: np.ndarray


def working_image(
    micrograph: np.ndarray,
    pixel_size_A: float,
    *,
    max_resolution_A: float,
    highpass_A: float,
    contrast_window_A: float,
    outlier_zscore: float = 8.0,
    threads: int = 1,
) -> WorkingImage:
    """Clean, invert, low-pass (by Fourier cropping) and high-pass a micrograph.

    Parameters
    ----------
    micrograph : ndarray ``[y, x]``
        Micrograph with dark protein.
    pixel_size_A : float
        Å per pixel of ``micrograph``.
    max_resolution_A : float
        The working pixel is half of this, but not smaller than that of the micrograph.
    highpass_A : float
        Features longer than this are removed. At this length half the amplitude remains.
    contrast_window_A : float
        Size of the window of the local contrast.
    outlier_zscore : float
        Pixels that differ from the mean by more than this many standard deviations are set to the mean, as in RELION.

    Raises
    ------
    InputError
        The micrograph is constant, has NaN, or is smaller than 16 working pixels.
    """
    if micrograph.ndim != 2:
        raise InputError(f"a micrograph must be one image [y, x], but this one has shape {micrograph.shape}.")
    mean, sd = float(np.mean(micrograph, dtype=np.float64)), float(np.std(micrograph, dtype=np.float64))
    if not np.isfinite(sd) or sd == 0.0:
        raise InputError("the micrograph is constant or has NaN. Exclude it, or check how it was made.")
    clean = ((mean - micrograph) / sd).astype(np.float32)  # inverted: particles are bright from here on
    clean[np.abs(clean) > outlier_zscore] = 0.0
    shape = _working_shape(micrograph.shape, pixel_size_A, max_resolution_A)
    coarse = resample(clean, shape, threads=threads)
    scale_y, scale_x = micrograph.shape[0] / shape[0], micrograph.shape[1] / shape[1]
    work_pixel = pixel_size_A * scale_x
    usable = ~foreign_bodies(coarse, contrast_window_A / work_pixel)
    if not usable.any():
        raise InputError("no part of the micrograph is free of carbon or ice. Exclude it.")
    coarse = high_pass(coarse, highpass_A / work_pixel, usable)
    spread = robust_sd(coarse[usable])
    if spread == 0.0:
        raise InputError("the micrograph has no contrast at the scale of the particle. Exclude it.")
    coarse /= np.float32(spread)
    noise = np.sqrt(shot_noise_variance(clean, pixel_size_A) / (scale_x * scale_y)) / spread
    contrast = np.sqrt(
        scipy.ndimage.gaussian_filter(coarse**2, contrast_window_A / (2.355 * work_pixel), mode="reflect")
    )
    return WorkingImage(coarse, work_pixel, (scale_x, scale_y), float(noise), contrast, usable)


def _working_shape(shape: tuple[int, ...], pixel_size_A: float, max_resolution_A: float) -> tuple[int, int]:
    factor = min(1.0, 2.0 * pixel_size_A / max_resolution_A)
    ny, nx = (max(2 * round(n * factor / 2), 2) for n in shape)
    if min(ny, nx) < 16:
        raise InputError(
            f"a micrograph of {shape[1]} x {shape[0]} px is too small to pick particles at {max_resolution_A:g} Å. Exclude it."
        )
    return ny, nx


def foreign_bodies(image: np.ndarray, diameter_px: float, *, zscore: float = 5.0) -> np.ndarray:
    """Return the areas of an image ``[y, x]`` that are larger than a particle and have another grey: carbon, ice, holes.

    There the smoothed grey value differs from the most frequent one by more than ``zscore`` standard deviations. The area
    must be so large that a disc of 1.7 particle diameters fits into it, which is never so for a blurred particle. It is
    extended by 0.15 diameters. The standard deviation comes from the values on the thin side of the most frequent one, where
    there is neither carbon nor ice. So up to a third of a micrograph may be carbon.
    """
    smooth = scipy.ndimage.gaussian_filter(image, diameter_px / 6.0, mode="reflect")
    counts, edges = np.histogram(smooth, bins=128, range=np.quantile(smooth, [0.02, 0.98]).tolist())
    peak = int(np.argmax(scipy.ndimage.gaussian_filter1d(counts.astype(np.float64), 4.0)))
    mode = 0.5 * float(edges[peak] + edges[peak + 1])
    thin = smooth[smooth < mode]
    spread = robust_sd(thin, mode) if thin.size else 0.0
    margin = int(np.ceil(1.5 * diameter_px))
    flagged = np.pad(np.abs(smooth - mode) > zscore * spread, margin, mode="symmetric")
    if not flagged.any():
        return np.zeros(image.shape, dtype=bool)
    # erosion and then a slightly larger dilation with discs; by distances, so that the time does not depend on their size
    core = scipy.ndimage.distance_transform_edt(flagged) > 0.85 * diameter_px
    if not core.any():
        return np.zeros(image.shape, dtype=bool)
    grown = scipy.ndimage.distance_transform_edt(~core) <= diameter_px
    return np.asarray(grown[margin:-margin, margin:-margin])


def high_pass(image: np.ndarray, length_px: float, usable: np.ndarray) -> np.ndarray:
    """Subtract from ``image`` ``[y, x]`` its Gaussian average, so that waves of ``length_px`` pixels are halved.

    Pixels that are not ``usable`` become zero and do not enter the average. The image is continued by reflection. So neither
    the rim of a dark patch nor a gradient at the border becomes a ring.
    """
    sigma = np.sqrt(np.log(2.0) / 2.0) * length_px / np.pi
    weight = usable.astype(np.float32)
    total = scipy.ndimage.gaussian_filter(image * weight, sigma, mode="reflect")
    background = total / np.maximum(scipy.ndimage.gaussian_filter(weight, sigma, mode="reflect"), 1e-3)
    return np.asarray((image - background) * weight, dtype=np.float32)


def shot_noise_variance(image: np.ndarray, pixel_size_A: float, *, tile: int = 256) -> float:
    """Return the variance per pixel of the white part of the noise of an image.

    The orthonormal power spectrum (mean over tiles, Welch) has signal at the maxima of the CTF and the noise floor at its
    zeros. The lower quartile of its rings between 12 Å (or half of Nyquist) and 0.9 Nyquist is taken as the floor.
    """
    tile = min(tile, *image.shape)
    starts = [np.unique(np.linspace(0, n - tile, min(6, n // tile + 1)).round().astype(int)) for n in image.shape]
    window = np.outer(np.hanning(tile), np.hanning(tile)).astype(np.float32)
    window /= np.sqrt(np.mean(window**2))
    power = np.zeros((tile, tile // 2 + 1))
    for y in starts[0]:
        for x in starts[1]:
            patch = image[y : y + tile, x : x + tile]
            power += np.abs(scipy.fft.rfft2((patch - patch.mean()) * window, norm="ortho")) ** 2
    power /= len(starts[0]) * len(starts[1])
    frequency = radial_frequency((tile, tile), pixel_size_A)
    nyquist = 0.5 / pixel_size_A
    low, high = max(min(1.0 / 12.0, 0.5 * nyquist), 0.25 * nyquist), 0.9 * nyquist
    rings = np.rint(frequency * tile * pixel_size_A).astype(int)
    inside = (frequency >= low) & (frequency <= high)
    count = np.bincount(rings[inside])
    mean = np.bincount(rings[inside], weights=power[inside]) / np.maximum(count, 1)
    return float(np.quantile(mean[count > 0], 0.25))
