"""The amplitude spectrum to which a CTF is fitted: resampled to a box, with the background removed.

Rohou & Grigorieff 2015, J. Struct. Biol. 192:216, doi:10.1016/j.jsb.2015.08.008 (CTFFIND4): amplitudes (not powers) of
the whole micrograph are averaged locally, by cropping the Fourier transform of the amplitude image, and a box-car
average is subtracted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy import ndimage

from cryopipe.errors import InputError
from cryopipe.imaging.fourier import full_plane

#: Grey values are clipped at this many standard deviations. Of 16 million normal values 0.03 are beyond.
_OUTLIER_SD = 6.0
#: Width of the taper at each edge, px. A choice: a wider taper reduces the bright cross, but also weakens more of the
#: micrograph (here less than 2 % of 4000 pixels).
_TAPER_PX = 32
#: Frequencies coarser than this multiple of the coarsest fitted resolution are flattened, because their huge amplitudes would
#: ring.
_FLATTEN = 2.5


@dataclass(frozen=True)
class Spectrum:
    """Amplitude spectrum of a micrograph on the full plane, zero frequency at ``[box // 2, box // 2]``.

    Attributes
    ----------
    amplitude : ndarray ``[box, box]`` float32
        Locally averaged amplitude divided by its mean.
    flattened : ndarray ``[box, box]`` float32
        Amplitude minus its smooth background, divided by its standard deviation between the fitted resolutions.
    pixel_size_A : float
        Pixel size that belongs to the box: frequencies are multiples of 1/(box · pixel_size_A).
    """

    amplitude: np.ndarray
    flattened: np.ndarray
    pixel_size_A: float

    @property
    def box(self) -> int:
        """Side of the spectrum."""
        return int(self.amplitude.shape[0])

    def frequencies(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (kx ``[1, box]``, ky ``[box, 1]``) in 1/Å."""
        axis = (np.arange(self.box) - self.box // 2) / (self.box * self.pixel_size_A)
        return axis[None, :], axis[:, None]


def resampled_box(box: int, pixel_size_A: float, fit_pixel_size_A: float) -> int:
    """Return the even side to which a spectrum is resampled before its centre of ``box`` pixels is cut out."""
    return box if pixel_size_A >= fit_pixel_size_A else 2 * round(box * fit_pixel_size_A / pixel_size_A / 2)


def amplitude_spectrum(
    micrograph: np.ndarray,
    pixel_size_A: float,
    *,
    box: int,
    fit_pixel_size_A: float,
    min_resolution_A: float,
    threads: int = 1,
) -> tuple[np.ndarray, float]:
    """Return the locally averaged amplitude spectrum ``[box, box]`` (centred, float32) and its pixel size in Å.

    Parameters
    ----------
    micrograph : ndarray ``[y, x]``
        Average without dose weighting.
    pixel_size_A : float
        Pixel size of the micrograph.
    box : int
        Even side of the result.
    fit_pixel_size_A : float
        Spectra of micrographs with smaller pixels are cropped to this pixel size (as closely as the box allows).
    min_resolution_A : float
        Coarsest resolution that will be fitted.
    threads : int
        Threads of the Fourier transforms.

    Raises
    ------
    InputError
        The micrograph is too small for the box, or flat.
    """
    large = resampled_box(box, pixel_size_A, fit_pixel_size_A)
    side = 2 * scipy.fft.next_fast_len((max(micrograph.shape) + 1) // 2, real=True)
    if side < large:
        raise InputError(
            f"a micrograph of {micrograph.shape[1]} x {micrograph.shape[0]} pixels is too small for a spectrum of "
            f"{large} pixels "
            f"(box {box} at {fit_pixel_size_A:g} Å). Set estimate_ctf_ctffind.box to "
            f"{side * box // large // 2 * 2} or less."
        )
    padded = np.zeros((side, side), dtype=np.float32)
    padded[: micrograph.shape[0], : micrograph.shape[1]] = prepared(micrograph)
    amplitude = np.abs(scipy.fft.rfft2(padded, workers=threads))
    flatten_center(amplitude, side, pixel_size_A, _FLATTEN * min_resolution_A)
    # Cropping the transform of the (even) amplitude image resamples it: a local average over side/large pixels.
    lags = scipy.fft.irfft2(amplitude, s=(side, side), workers=threads)
    keep = np.r_[0 : large // 2, side - large // 2 : side]
    small = scipy.fft.rfft2(lags[np.ix_(keep, keep)]).real  # [large, large // 2 + 1]
    full = np.fft.fftshift(full_plane(small))
    start = (large - box) // 2
    cut = full[start : start + box, start : start + box] if large > box else full
    return (cut / cut.mean()).astype(np.float32), pixel_size_A * large / box


def prepared(micrograph: np.ndarray) -> np.ndarray:
    """Return the micrograph with outliers clipped, mean 0, tapered at its edges, float32."""
    image = np.asarray(micrograph, dtype=np.float32)
    mean, sd = float(image.mean(dtype=np.float64)), float(image.std(dtype=np.float64))
    if not np.isfinite(sd) or sd == 0:
        raise InputError(
            "the micrograph is flat or has values that are not finite, so it has no spectrum to fit. Leave it out."
        )
    clipped = np.clip(image, mean - _OUTLIER_SD * sd, mean + _OUTLIER_SD * sd)
    clipped -= np.float32(clipped.mean(dtype=np.float64))
    # A step at the edges would put a bright cross into the spectrum.
    for axis, n in enumerate(image.shape):
        width = min(_TAPER_PX, n // 8)
        ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(width) + 0.5) / width)).astype(np.float32)
        profile = np.concatenate([ramp, np.ones(n - 2 * width, dtype=np.float32), ramp[::-1]])
        clipped *= profile[:, None] if axis == 0 else profile[None, :]
    return clipped


def flatten_center(amplitude: np.ndarray, side: int, pixel_size_A: float, resolution_A: float) -> None:
    """Set the frequencies of a half spectrum that are coarser than ``resolution_A`` to their mean near that resolution.

    Parameters
    ----------
    amplitude : ndarray ``[side, side // 2 + 1]``
        Half plane of amplitudes, frequency 0 at ``[0, 0]``; changed in place.
    side : int
        Side of the image that was transformed, pixels.
    pixel_size_A : float
        Å per pixel of that image.
    resolution_A : float
        Å. At least the innermost two pixels are flattened.
    """
    radius = max(side * pixel_size_A / resolution_A, 2.0)
    reach = int(np.ceil(radius))
    ky, kx = np.fft.fftfreq(side, 1.0 / side)[:, None], np.arange(reach + 1)[None, :]
    inside = ky**2 + kx**2 <= radius**2
    ring = inside & (ky**2 + kx**2 > (0.8 * radius) ** 2)
    amplitude[:, : reach + 1][inside] = amplitude[:, : reach + 1][ring].mean()


def make_spectrum(
    micrograph: np.ndarray,
    pixel_size_A: float,
    *,
    box: int = 512,
    fit_pixel_size_A: float = 1.4,
    min_resolution_A: float = 30.0,
    threads: int = 1,
) -> Spectrum:
    """Return the spectrum of a micrograph without its background (`amplitude_spectrum`, `flattened_spectrum`).

    Parameters
    ----------
    micrograph : ndarray ``[y, x]``
        Average without dose weighting.
    pixel_size_A : float
        Å per pixel of the micrograph.
    box : int
        Even side of the spectrum, pixels.
    fit_pixel_size_A : float
        Spectra of micrographs with smaller pixels are cropped to this pixel size, Å.
    min_resolution_A : float
        Coarsest resolution that will be fitted, Å. It determines the width of the box-car.
    threads : int
        CPU threads of the Fourier transforms.
    """
    amplitude, fitted = amplitude_spectrum(
        micrograph,
        pixel_size_A,
        box=box,
        fit_pixel_size_A=fit_pixel_size_A,
        min_resolution_A=min_resolution_A,
        threads=threads,
    )
    return flattened_spectrum(amplitude, fitted, min_resolution_A=min_resolution_A)


def flattened_spectrum(amplitude: np.ndarray, pixel_size_A: float, *, min_resolution_A: float) -> Spectrum:
    """Remove the background of an amplitude spectrum ``[box, box]`` (centred) by a box-car average.

    The box-car is √2 box·pixel/min_resolution pixels wide (CTFFIND4): about as wide as the first ring.
    """
    box = amplitude.shape[0]
    width = 2 * int(box * pixel_size_A / min_resolution_A * np.sqrt(2.0) / 2.0) + 1
    residual = amplitude - ndimage.uniform_filter(amplitude, width, mode="mirror")
    axis = np.arange(box) - box // 2
    radius = np.hypot(axis[:, None], axis[None, :])
    band = (radius >= box * pixel_size_A / min_resolution_A) & (radius < box // 2)
    limit = 8.0 * residual[band].std(dtype=np.float64)
    residual = np.clip(residual, -limit, limit)
    residual /= max(float(residual[band].std(dtype=np.float64)), 1e-20)
    return Spectrum(amplitude.astype(np.float32), residual.astype(np.float32), pixel_size_A)
