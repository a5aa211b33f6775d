"""A map's Fourier voxels up to a radius, with unit power in each shell, interpolated at any orientation."""

from __future__ import annotations

import numpy as np
import scipy.fft
from scipy import ndimage

from cryopipe.errors import InputError
from cryopipe.imaging.fourier import cube_box, resample
from cryopipe.imaging.masks import soft_sphere

# Oversampling of the transform. At 2 cubic splines interpolate a map that fills half the box to better than 1 %.
_PADDING = 2


class MapSpectrum:
    """A map's shell-normalised Fourier voxels up to a radius, and splines to interpolate between grid points."""

    def __init__(self, volume: np.ndarray, radius: int, threads: int) -> None:
        box = cube_box(volume)
        small = scipy.fft.next_fast_len(2 * (radius + 2), real=True)
        small += small % 2
        # The spherical mask removes the corners, so that the transform is smooth enough for interpolation.
        masked = np.asarray(volume, dtype=np.float32) * soft_sphere(box, 0.44 * box, edge_px=max(0.05 * box, 2.0))
        cropped = resample(masked, (small,) * 3, centred=True, threads=threads) if small < box else masked
        self.radius = radius
        self.voxels = half_space(radius)
        size = _PADDING * len(cropped)
        padded = np.zeros((size,) * 3, dtype=np.float32)
        first = size // 2 - len(cropped) // 2
        padded[(slice(first, first + len(cropped)),) * 3] = cropped
        full = scipy.fft.fftn(scipy.fft.ifftshift(padded), workers=threads).astype(np.complex64)
        reach = _PADDING * (radius + 2)
        wrapped = np.arange(-reach, reach + 1)
        cube = full[np.ix_(wrapped, wrapped, wrapped)]
        self.centre = reach
        # Grey units differ between maps, therefore every shell is scaled to mean power 1.
        lengths = np.linalg.norm(self.voxels, axis=1)
        values = cube[tuple((_PADDING * self.voxels[:, ::-1].T + reach).astype(np.int64))]
        shells = np.rint(lengths).astype(np.int64)
        power = np.bincount(shells, np.square(np.abs(values)), minlength=radius + 2) / np.maximum(
            np.bincount(shells, minlength=radius + 2), 1
        )
        if not np.all(np.isfinite(power)) or power.max() <= 0.0:
            raise InputError("a map to be aligned is empty or not finite. Check the maps.")
        gain = 1.0 / np.sqrt(np.maximum(power, 1e-12 * power.max()))
        self.gain = np.interp(lengths, np.arange(1, radius + 1), gain[1 : radius + 1])
        self.values = values * self.gain
        self.linear = cube
        self._spline: np.ndarray | None = None

    def at(self, rotation: np.ndarray, chosen: slice, *, order: int) -> np.ndarray:
        """Return the normalised spectrum of the turned map, F(rotationᵀ k), at the chosen voxels k: complex ``[K]``."""
        points = _PADDING * np.einsum("ki,ij->jk", self.voxels[chosen], rotation)[::-1] + self.centre
        if order == 1:
            return ndimage.map_coordinates(self.linear, points, order=1) * self.gain[chosen]
        if self._spline is None:
            self._spline = ndimage.spline_filter(self.linear, order=3, output=np.complex64)
        return ndimage.map_coordinates(self._spline, points, order=3, prefilter=False) * self.gain[chosen]


def half_space(radius: int) -> np.ndarray:
    """Return the independent Fourier voxels 1 <= |k| <= radius as (kx, ky, kz) float64 ``[K, 3]``."""
    axis = np.arange(-radius, radius + 1)
    kz, ky, kx = np.meshgrid(axis, axis, axis[radius:], indexing="ij")
    unique = (kx > 0) | ((kx == 0) & ((ky > 0) | ((ky == 0) & (kz > 0))))
    inside = unique & (kx * kx + ky * ky + kz * kz <= radius * radius)
    return np.stack([kx[inside], ky[inside], kz[inside]], axis=1).astype(np.float64)
