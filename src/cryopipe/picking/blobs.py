"""Multi-scale Laplacian of Gaussian: the strength of the blob at each place, relative to the rest of the micrograph.

Source: Zivanov et al. 2018, doi:10.7554/eLife.42166 (RELION's LoG picker). A Gaussian of standard deviation d / π represents
the diameter d. In Fourier space the filter is (k/s)² exp(-(k/s)²/2) with s = 0.5 / d. The response of each filter is divided
by its own spread over the micrograph. So filters of different size are compared by the rarity of their response. Otherwise wide
filters would win where the ice thickness varies, and narrow ones by shot noise. Known limit: The response to a hollow shell of
outer diameter D is strongest at d = 1.14 D to 1.3 D, that to a ball at 0.94 D, and that to an elongated particle at a diameter
between its shortest and its longest extent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from cryopipe.errors import InputError
from cryopipe.imaging.fourier import frequency_grid
from cryopipe.imaging.optics import CtfParameters, ctf, ctf_phase
from cryopipe.imaging.statistics import robust_sd


@dataclass(frozen=True, eq=False)
class Response:
    """Response of a bank of filters, with the shape of the image.

    Attributes
    ----------
    merit : float32 ``[y, x]``
        Figure of merit: the largest response of all filters, in standard deviations of the response of that filter.
    noise_sd : float32 ``[y, x]``
        Standard deviation of the response of that filter to the white noise of the image alone.
    in_range : bool ``[y, x]``
        Places where particles can be.
    """

    merit: np.ndarray
    noise_sd: np.ndarray
    in_range: np.ndarray


def diameter_series(minimum_A: float, maximum_A: float) -> list[float]:
    """Return the diameters of the filters in Å: the smallest, the largest and their mean."""
    if not 0 < minimum_A <= maximum_A:
        raise InputError(
            f"min_diameter_A {minimum_A:g} and max_diameter_A {maximum_A:g} are not a range. Give 0 < min <= max."
        )
    return sorted({minimum_A, (minimum_A + maximum_A) / 2, maximum_A})


def log_response(
    image: np.ndarray,
    pixel_size_A: float,
    *,
    min_diameter_A: float,
    max_diameter_A: float,
    usable: np.ndarray | None = None,
    white_noise_sd: float = 0.0,
    optics: CtfParameters | None = None,
    threads: int = 1,
) -> Response:
    """Filter an image with Laplacians of Gaussians of all diameters of :func:`diameter_series`.

    Parameters
    ----------
    image : float32 ``[y, x]``
        Image with bright particles and mean 0.
    pixel_size_A, min_diameter_A, max_diameter_A : float
        Pixel size and range of diameters, Å.
    usable : bool ``[y, x]``, optional
        Places where particles can be; None: everywhere. The spread of the response of a filter is measured there.
    white_noise_sd : float
        Standard deviation of the white noise in ``image``.
    optics : CtfParameters, optional
        If given, correct the rise of the CTF from zero frequency to its first maximum (by at most 1 / amplitude contrast).
    threads : int
        Threads of the transforms.
    """
    usable = np.ones(image.shape, dtype=bool) if usable is None else usable
    padded, crop = padded_by_reflection(image, round(max_diameter_A / pixel_size_A))
    spectrum = scipy.fft.rfft2(padded, workers=threads)
    kx, ky = frequency_grid(padded.shape, pixel_size_A)
    squared = np.square(kx) + np.square(ky)
    correction = np.ones(squared.shape) if optics is None else 1.0 / rise_of_ctf(kx, ky, optics)
    merit = np.full(image.shape, -np.inf, dtype=np.float32)
    noise = np.zeros(image.shape, dtype=np.float32)
    for diameter in diameter_series(min_diameter_A, max_diameter_A):
        relative = squared * (2.0 * diameter) ** 2
        transfer = correction * relative * np.exp(-0.5 * relative)
        answer = scipy.fft.irfft2(spectrum * transfer, s=padded.shape, workers=threads)[crop].astype(np.float32)
        # without a spread (constant response, no usable place) the response is not divided
        spread = (robust_sd(answer[usable]) if usable.any() else 0.0) or 1.0
        answer /= np.float32(spread)
        better = answer > merit
        merit[better] = answer[better]
        noise[better] = white_noise_sd * transfer_norm(transfer, padded.shape) / spread
    return Response(merit, noise, usable)


def rise_of_ctf(kx: np.ndarray, ky: np.ndarray, optics: CtfParameters) -> np.ndarray:
    """Return |CTF| up to its first maximum and 1 beyond. A division by it restores only the lowest frequencies."""
    rising = np.abs(ctf_phase(kx, ky, optics)) < np.pi / 2
    return np.where(rising, np.maximum(np.abs(ctf(kx, ky, optics)), 1e-2), 1.0)


def transfer_norm(transfer: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return the sd of white noise (sd 1) after a filter, which is given on the half spectrum of ``shape``."""
    weight = np.full(transfer.shape[1], 2.0)
    weight[0] = 1.0
    if shape[1] % 2 == 0:
        weight[-1] = 1.0
    return float(np.sqrt(np.sum(np.square(transfer) @ weight) / (shape[0] * shape[1])))


def padded_by_reflection(image: np.ndarray, margin_px: int) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Continue an image by reflection to a size that suits FFTs. Also return the position of the image in the result."""
    pads = []
    for n in image.shape:
        margin = min(max(margin_px, 1), n - 1)
        total = scipy.fft.next_fast_len(n + 2 * margin, real=True)
        pads.append((margin, total - n - margin))
    padded = np.pad(image, pads, mode="symmetric")
    crop = (slice(pads[0][0], pads[0][0] + image.shape[0]), slice(pads[1][0], pads[1][0] + image.shape[1]))
    return padded, crop
