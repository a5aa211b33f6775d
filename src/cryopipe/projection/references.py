"""References of the images: a map as a half cube, or slices of one or several maps.

Before padding, the map is divided by the transform of the trilinear kernel (separable sinc²), by which interpolation
multiplies it again. For a particle of 0.65 box the remaining error of a slice is about 4 % rms at padding 2 and 1.5 % at
padding 3. Nearly all of it comes from the kernel's side lobes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module
from cryopipe.imaging.fourier_pixels import FourierPixels
from cryopipe.kernels.slices import extract_slices
from cryopipe.projection.half_cube import check_cube, correct_gridding, half_cube
from cryopipe.projection.particle_spectra import ParticleSpectra


@dataclass(frozen=True, eq=False)
class ReferenceMap:
    """A map in which poses are refined.

    Attributes
    ----------
    cube : complex64 [2R+1, 2R+1, R+1], NumPy or CuPy
        The result of `reference_cube` for the map.
    padding : int
        Zero-padding factor of the cube.
    pixel_size_A : float, optional
        Pixel size of the map. If it is given, it is compared with that of the images.
    """

    cube: Any
    padding: int = 2
    pixel_size_A: float | None = None

    def slices(self, rotations: np.ndarray, pixels: FourierPixels) -> Any:
        """Return the central slices at poses float [o, 3, 3] on half-plane pixels, complex64 [o, K]."""
        xp = array_module(self.cube)
        kx, ky = xp.asarray(pixels.kx), xp.asarray(pixels.ky)
        return extract_slices(self.cube, xp.asarray(rotations), kx, ky, padding=self.padding)

    def check(self, images: ParticleSpectra) -> None:
        """Raise an `InputError` if the map has another pixel size than the images or does not reach their radius."""
        if self.pixel_size_A is not None and abs(self.pixel_size_A / images.pixel_size_A - 1) > 1e-3:
            raise InputError(
                f"the map has {self.pixel_size_A:g} Å per pixel, but the images have {images.pixel_size_A:g} Å. Resample "
                "the map (resize_volume)."
            )
        needed = int(np.ceil(self.padding * (images.pixels.radius + 0.5)))
        if self.cube.ndim != 3 or self.cube.shape[2] - 1 < needed:
            raise InputError(
                f"a reference cube of shape {tuple(self.cube.shape)} does not reach shell {images.pixels.radius} at "
                f"padding {self.padding}. Make it with that radius (reference_cube), or crop the images."
            )


@dataclass(frozen=True, eq=False)
class ReferenceSlices:
    """The states that an exhaustive search compares images with: slices of one or several references.

    Attributes
    ----------
    slices : complex64 [o, K], NumPy or CuPy
        Slices without CTF on the pixels of the images. There are o = references x orientations states; the orientation
        runs fastest.
    log_prior : float [o], optional
        Log prior of the states (class shares, weights of grid points). ``-inf`` excludes a state.
    n_references : int
        Number of references.
    """

    slices: Any
    log_prior: np.ndarray | None = None
    n_references: int = 1

    def __len__(self) -> int:
        return len(self.slices)

    def check(self, images: ParticleSpectra) -> None:
        """Raise an `InputError` if the slices cannot be compared with the images."""
        slices = self.slices
        if slices.ndim != 2 or slices.shape[1] != len(images.pixels) or len(slices) == 0:
            raise InputError(
                f"references of shape {tuple(slices.shape)} do not fit images with {len(images.pixels)} Fourier pixels. "
                "Extract them on images.pixels."
            )
        if self.n_references < 1 or len(slices) % self.n_references:
            raise InputError(f"{len(slices)} states cannot be divided equally into {self.n_references} references")
        if not bool(array_module(slices).isfinite(slices).all()):
            raise InputError("the references contain NaN or infinite values. Check the map from which they were made.")

    def state_log_prior(self) -> np.ndarray:
        """Return the log prior of the states, float32 [o]. It is zero if no prior is given."""
        return log_prior(self.log_prior, [(len(self.slices),)], "log_prior")


def log_prior(prior: np.ndarray | None, shapes: Sequence[tuple[int, ...]], name: str) -> np.ndarray:
    """Return a log prior as float32 without -inf. If none is given, return zeros of the last of the allowed ``shapes``.

    Raises
    ------
    InputError
        The shape is not allowed, or a value is NaN or +inf. The message contains ``name``.
    """
    if prior is None:
        return np.zeros(shapes[-1], np.float32)
    prior = np.asarray(prior, np.float32)
    if prior.shape not in shapes or np.isnan(prior).any() or np.any(prior == np.inf):
        raise InputError(f"{name} of shape {prior.shape} does not fit, or contains NaN or +inf")
    # Differences of -inf would be NaN. A log prior of -1e30 excludes a state as well.
    return np.maximum(prior, np.float32(-1e30))


def reference_cube(volume: Any, radius: int, *, padding: int = 2, threads: int = 1) -> Any:
    """Return the half cube of a real map with gridding pre-correction.

    Parameters
    ----------
    volume : ndarray [n, n, n], float32, NumPy or CuPy
        Real map ``[z, y, x]``, centre at ``n // 2``, n even. Its values are in units of image grey per voxel of depth.
    radius : int
        Outermost shell of the slices, in Fourier pixels, at most ``n // 2 - 1``.
    padding, threads : int
        Zero-padding factor and CPU threads.

    Returns
    -------
    ndarray complex64 [2R+1, 2R+1, R+1]
        Input of `cryopipe.kernels.slices.extract_slices` with the same ``padding``. Its slices are orthonormal spectra.

    Raises
    ------
    InputError
        The volume is not a cube of even edge, or contains NaN or infinity, or the radius does not fit.
    """
    check_cube(volume.shape, radius, padding)
    if not bool(array_module(volume).isfinite(volume.sum(dtype="float64"))):
        raise InputError("the reference map contains NaN or infinite values. Use another map or the last good one.")
    return half_cube(correct_gridding(volume, padding), radius, padding=padding, threads=threads)


def check_scale(images: ParticleSpectra, map_box: int, map_pixel_size_A: float) -> None:
    """Refuse a map whose side length differs from that of the images, because its Fourier pixels have other frequencies.

    Box and pixel size may differ (a working box), but their products must agree to 0.1 %.

    Raises
    ------
    InputError
    """
    sides = images.box * images.pixel_size_A, map_box * map_pixel_size_A
    if not abs(sides[1] / sides[0] - 1) < 1e-3:
        raise InputError(
            f"the reference map has {map_box} voxels of {map_pixel_size_A:g} Å ({sides[1]:g} Å), but the images have "
            f"{images.box} px of {images.pixel_size_A:g} Å ({sides[0]:g} Å). Resample and crop the map to the images "
            "(resize_volume), or correct the pixel size in its header."
        )
