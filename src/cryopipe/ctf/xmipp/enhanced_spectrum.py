"""Enhanced power spectrum: logarithm, median and band-pass of the spectrum as an image make Thon rings visible.

Jonić et al. 2007, J. Struct. Biol. 157:64, doi:10.1016/j.jsb.2006.07.008; xmipp ``ctf_enhance_psd``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy import ndimage

from cryopipe.imaging.fourier import full_plane

#: Share of the values that is clipped at each end, and width of the edges of the band-pass (cycles per pixel), as in xmipp.
_TAIL, _DECAY = 0.02, 0.02
#: Band-pass of the spectrum as an image, cycles per pixel of the spectrum.
_BAND = (0.02, 0.2)
#: The spectrum is shown between these digital frequencies. The statistics come from the outer tenth.
_MASK = (0.01, 0.48)
_OUTER = 0.9


@dataclass(frozen=True)
class EnhancedPsd:
    """Enhanced spectrum ``[n, n]`` float64, zero frequency in the middle, divided by the sd of its outer annulus.

    ``mask`` ``[n, n]`` bool marks where it is valid. Elsewhere the spectrum is 0.
    """

    values: np.ndarray
    mask: np.ndarray
    pixel_size_A: float

    def at(self, kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
        """Return the values at frequencies (1/Å) by bilinear interpolation."""
        n = self.values.shape[0]
        scale = n * self.pixel_size_A
        where = np.stack([np.asarray(ky) * scale + n // 2, np.asarray(kx) * scale + n // 2])
        return ndimage.map_coordinates(self.values, where, order=1, mode="nearest")


def enhance_psd(power: np.ndarray, pixel_size_A: float) -> EnhancedPsd:
    """Enhance an averaged periodogram.

    Parameters
    ----------
    power : ndarray ``[n, n // 2 + 1]``
        Power of a :class:`cryopipe.ctf.xmipp.periodogram.Periodogram`.
    pixel_size_A : float
        Pixel size of the windows. Frequencies are multiples of 1/(n · pixel size).
    """
    image = ndimage.median_filter(np.log10(1.0 + np.fft.fftshift(full_plane(power))), 3, mode="wrap")
    n = image.shape[0]
    axis = (np.arange(n) - n // 2) / n
    radius = np.hypot(axis[:, None], axis[None, :])
    mask = (radius >= _MASK[0]) & (radius <= _MASK[1])
    low, high = np.quantile(image[mask], [_TAIL, 1.0 - _TAIL])
    image = np.clip(image, low, high)
    image = _band_passed(image)
    outer = mask & (radius >= _OUTER * _MASK[1])
    mean, sd = float(image[outer].mean()), float(image[outer].std())
    return EnhancedPsd(np.where(mask, (image - mean) / max(sd, 1e-12), 0.0), mask, pixel_size_A)


def _band_passed(image: np.ndarray) -> np.ndarray:
    n = image.shape[0]
    ky, kx = scipy.fft.fftfreq(n)[:, None], scipy.fft.rfftfreq(n)[None, :]
    k = np.hypot(ky, kx)
    rising = np.clip((k - (_BAND[0] - _DECAY)) / _DECAY, 0.0, 1.0)
    falling = np.clip(((_BAND[1] + _DECAY) - k) / _DECAY, 0.0, 1.0)
    window = (0.5 - 0.5 * np.cos(np.pi * rising)) * (0.5 - 0.5 * np.cos(np.pi * falling))
    return scipy.fft.irfft2(scipy.fft.rfft2(image) * window, s=(n, n))
