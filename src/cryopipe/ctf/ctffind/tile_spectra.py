"""Spectra of a micrograph's tiles, and their sum after each has been brought to one common defocus.

On a tilted specimen every tile has its rings at other frequencies, so those of the whole micrograph are blurred. The
spectrum of each tile is stretched until its phase is that of the common defocus, and then the spectra are added (CTFFIND5,
Elferich et al. 2024, doi:10.7554/eLife.97227). Here the stretch is exact: it includes astigmatism and spherical aberration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy import ndimage

from cryopipe.ctf.ctffind.spectrum import Spectrum, flatten_center, flattened_spectrum, prepared
from cryopipe.ctf.defocus import Defocus, Microscope
from cryopipe.errors import InputError
from cryopipe.imaging.fourier import full_plane, resample

#: Least number of tiles along an axis. Two would determine a slope, but without any redundancy.
_LEAST_TILES = 3
#: Number of tiles per side of a tile (overlap). On a phantom slopes are a third less accurate with 2, and not better with 4.
_PER_SIDE = 3
#: Frequencies coarser than this multiple of the coarsest fitted resolution are flattened, as in `spectrum`.
_FLATTEN = 2.5
#: Tiles whose defoci differ by less than this (Å) are stretched together. It changes the phase by 0.25 rad at 4 Å and 300 kV.
_GROUP_A = 60.0


@dataclass(frozen=True)
class Tiles:
    """Amplitude spectra of tiles that overlap by two thirds.

    Attributes
    ----------
    amplitude : ndarray ``[n, side, side // 2 + 1]`` float32
        Half planes, each divided by its mean. Row y has the frequency ``fftfreq(side)[y]``.
    x_A, y_A : ndarray ``[n]``
        Centres of the tiles relative to pixel n // 2 of the micrograph, along columns and rows.
    pixel_size_A : float
        Pixel size of the tiles.
    """

    amplitude: np.ndarray
    x_A: np.ndarray
    y_A: np.ndarray
    pixel_size_A: float

    @property
    def side(self) -> int:
        """Side of the tiles in pixels."""
        return int(self.amplitude.shape[1])


def fit_image(micrograph: np.ndarray, pixel_size_A: float, fit_pixel_size_A: float) -> tuple[np.ndarray, float]:
    """Return the micrograph without outliers, resampled to about ``fit_pixel_size_A`` if finer, and its pixel size."""
    image = prepared(micrograph)
    if pixel_size_A >= fit_pixel_size_A:
        return image, pixel_size_A
    shape = tuple(2 * round(n * pixel_size_A / fit_pixel_size_A / 2) for n in image.shape)
    return np.asarray(resample(image, shape)), pixel_size_A * image.shape[0] / shape[0]


def tile_spectra(image: np.ndarray, pixel_size_A: float, side: int, *, min_resolution_A: float) -> Tiles:
    """Return the spectra of tiles that are tapered (Hann) and spread evenly over the image.

    Parameters
    ----------
    image : ndarray ``[y, x]``
        From :func:`fit_image`.
    pixel_size_A : float
        Å per pixel of ``image``.
    side : int
        Side of the tiles, pixels; even.
    min_resolution_A : float
        Coarsest resolution that will be fitted, Å. The centre of each spectrum is flattened up to 2.5 times this.

    Raises
    ------
    InputError
        There are less than three tiles along an axis, too few to fit a plane.
    """
    counts = [_PER_SIDE * (n - side) // side + 1 if n >= side else 0 for n in image.shape]
    if min(counts) < _LEAST_TILES:
        raise InputError(
            f"a micrograph of {image.shape[1]} x {image.shape[0]} pixels of {pixel_size_A:.3g} Å has room for "
            f"{max(min(counts), 0)} tiles of {side} pixels along an axis, but a tilt needs {_LEAST_TILES}. Set "
            f"estimate_ctf_ctffind.box to {min(image.shape) // 2 // 2 * 2} or less, or find_tilt to false."
        )
    corners = [np.rint(np.linspace(0, n - side, c)).astype(int) for n, c in zip(image.shape, counts, strict=True)]
    taper = np.hanning(side + 1)[:side].astype(np.float32)
    mask = taper[:, None] * taper[None, :]
    amplitude = np.empty((counts[0] * counts[1], side, side // 2 + 1), dtype=np.float32)
    places = [(y, x) for y in corners[0] for x in corners[1]]
    for spectrum, (y, x) in zip(amplitude, places, strict=True):
        tile = image[y : y + side, x : x + side]
        spectrum[:] = np.abs(scipy.fft.rfft2((tile - tile.mean()) * mask, workers=1))
        flatten_center(spectrum, side, pixel_size_A, _FLATTEN * min_resolution_A)
        spectrum /= spectrum.mean()
    middle = np.array(places) + side // 2 - np.array(image.shape) // 2
    return Tiles(amplitude, middle[:, 1] * pixel_size_A, middle[:, 0] * pixel_size_A, pixel_size_A)


def common_spectrum(
    tiles: Tiles, offsets_A: np.ndarray, defocus: Defocus, microscope: Microscope, *, min_resolution_A: float
) -> Spectrum:
    """Return the mean spectrum of tiles after each has been brought to the defocus ``defocus``.

    Each tile is read at the frequencies at which its phase is that of ``defocus``. At frequencies beyond the Nyquist
    frequency of a tile only the other tiles count.

    Parameters
    ----------
    tiles : Tiles
        Spectra of all tiles.
    offsets_A : ndarray ``[n]``
        Defocus of each tile minus ``defocus``, Å.
    defocus : Defocus
        The common defocus. All tiles have its astigmatism.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    min_resolution_A : float
        Coarsest resolution that will be fitted, Å.
    """
    side = tiles.side
    unit = 1.0 / (side * tiles.pixel_size_A)
    y, x = np.arange(side)[:, None] - side // 2, np.arange(side // 2 + 1)[None, :]
    k2 = (x**2 + y**2) * unit**2
    safe = np.where(k2 > 0, k2, 1.0)
    here = defocus.mean_A + (defocus.a_A * (x**2 - y**2) + defocus.b_A * 2.0 * x * y) * (unit**2 / safe)
    curvature = 0.5 * microscope.wavelength_A**2 * microscope.cs_mm * 1e7
    turns = here * k2 - curvature * k2**2  # χ / πλ without its constants
    sums, weights = np.zeros(k2.shape), np.zeros(k2.shape)
    groups = np.rint(offsets_A / _GROUP_A).astype(int)
    for group in np.unique(groups):
        members = groups == group
        there = here + offsets_A[members].mean()
        discriminant = there**2 - 4.0 * curvature * turns
        source = 2.0 * turns / (there + np.sqrt(np.maximum(discriminant, 0.0)))
        usable = (discriminant > 0) & (source > 0) & (k2 > 0)
        ratio = np.sqrt(np.where(usable, source, safe) / safe)
        mean = np.fft.fftshift(tiles.amplitude[members].mean(axis=0), axes=0)
        values = ndimage.map_coordinates(mean, [y * ratio + side // 2, x * ratio], order=1, cval=-1.0)
        seen = np.where(values >= 0, members.sum(), 0)
        sums += seen * values
        weights += seen
    half = np.fft.ifftshift(sums / np.maximum(weights, 1e-9), axes=0)
    half[np.fft.ifftshift(weights, axes=0) == 0] = half[half > 0].min()
    amplitude = np.fft.fftshift(full_plane(half))
    return flattened_spectrum(amplitude / amplitude.mean(), tiles.pixel_size_A, min_resolution_A=min_resolution_A)
