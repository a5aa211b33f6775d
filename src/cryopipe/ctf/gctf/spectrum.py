"""Logarithmic amplitude spectrum of overlapping windows, as Gctf fits it.

K. Zhang 2016, J. Struct. Biol. 193:1, doi:10.1016/j.jsb.2015.11.003: the logarithm of the amplitudes averaged over windows,
minus a box-car average. The logarithm turns the envelope into a summand, which the box-car removes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy import ndimage

from cryopipe.ctf.windows import window_side
from cryopipe.errors import InputError
from cryopipe.imaging.fourier import full_plane, resample

#: Added to the amplitudes, in units of their median, so that the logarithm of 0 never occurs. Usual values change by one part
#: in a million.
_FLOOR = 1e-6


@dataclass(frozen=True)
class LogSpectrum:
    """Background-free logarithmic amplitudes of half a plane.

    Attributes
    ----------
    values : ndarray ``[box, box // 2 + 1]`` float32
        Row y has the frequency ``fftfreq(box)[y]``, column x the frequency x / box (cycles per pixel).
    regions : ndarray ``[4, box, box // 2 + 1]`` float32
        The same for the four quarters of the micrograph.
    pixel_size_A : float
        Pixel size of the windows.
    """

    values: np.ndarray
    regions: np.ndarray
    pixel_size_A: float

    @property
    def box(self) -> int:
        """Side of the windows."""
        return int(self.values.shape[0])


def log_spectrum(
    micrograph: np.ndarray, pixel_size_A: float, *, box: int, working_pixel_A: float, convolution_px: int
) -> LogSpectrum:
    """Return the logarithmic spectrum of a micrograph ``[y, x]``.

    Parameters
    ----------
    micrograph : ndarray ``[y, x]``
        Plain average of the frames.
    pixel_size_A : float
        Pixel size of the micrograph.
    box : int
        Side of the windows, which overlap by half and are tapered (Hann). If there are less than two windows along a
        side of the micrograph, they are made smaller (`window_side`).
    working_pixel_A : float
        Micrographs with smaller pixels are resampled to this pixel size.
    convolution_px : int
        Width of the box-car average.

    Raises
    ------
    InputError
        The micrograph is flat, not finite, or too small for two by two windows of 128 pixels.
    """
    image = np.asarray(micrograph, dtype=np.float32)
    sd = float(image.std(dtype=np.float64))
    if not np.isfinite(sd) or sd == 0:
        raise InputError(
            "the micrograph is flat or has values that are not finite, so it has no spectrum to fit. Leave it out."
        )
    if pixel_size_A < working_pixel_A:
        shape = tuple(2 * round(n * pixel_size_A / working_pixel_A / 2) for n in image.shape)
        scale = image.shape[0] / shape[0]
        image, pixel_size_A = resample(image, shape), pixel_size_A * scale
    box = window_side(image.shape, box, pixel_size_A, step="estimate_ctf_gctf")
    starts = [np.arange(0, n - box + 1, box // 2) for n in image.shape]
    taper = np.hanning(box + 1)[:box].astype(np.float32)
    mask = taper[:, None] * taper[None, :]
    # a window belongs to the quarter of the micrograph in which its centre is; there are at least two by two windows
    sums = np.zeros((4, box, box // 2 + 1))
    for y in starts[0]:
        for x in starts[1]:
            window = image[y : y + box, x : x + box]
            quarter = 2 * (2 * y > starts[0][-1]) + (2 * x > starts[1][-1])
            sums[quarter] += np.abs(scipy.fft.rfft2((window - window.mean()) * mask, workers=1))
    values, *regions = (_logarithm(a, convolution_px) for a in (sums.sum(axis=0), *sums))
    return LogSpectrum(values, np.stack(regions), pixel_size_A)


def _logarithm(amplitude: np.ndarray, convolution_px: int) -> np.ndarray:
    """Return the logarithm of a half plane minus its box-car average, float32."""
    logarithm = np.log(amplitude + _FLOOR * np.median(amplitude))
    # the box-car needs both sides of the column x = 0
    background = ndimage.uniform_filter(full_plane(logarithm), convolution_px, mode="wrap")[:, : logarithm.shape[1]]
    return (logarithm - background).astype(np.float32)
