"""References of a search: the half cube of a map, ready for slice extraction, and its slices in chunks.

Before padding, the map is divided by the transform of the trilinear kernel (separable sinc²); interpolation multiplies
it back. The remaining error of a slice is about 4 % rms at padding 2 for a particle of 0.65 box and 1.5 % at padding 3,
nearly all of it from the kernel's side lobes.
"""

from __future__ import annotations

from typing import Any

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module
from cryopipe.projection.half_cube import check_cube, correct_gridding, half_cube
from cryopipe.projection.particle_spectra import ParticleSpectra


def reference_cube(volume: Any, radius: int, *, padding: int = 2, threads: int = 1) -> Any:
    """Return the half cube of a real map with gridding pre-correction.

    Parameters
    ----------
    volume : ndarray [n, n, n], float32, NumPy or CuPy
        Real map ``[z, y, x]``, centre at ``n // 2``, n even; its values in units of image grey per voxel of depth.
    radius : int
        Outermost shell of the slices to come, Fourier pixels; at most ``n // 2 - 1``.
    padding, threads : int
        Zero-padding factor and CPU threads.

    Returns
    -------
    ndarray complex64 [2R+1, 2R+1, R+1]
        For `cryopipe.kernels.slices.extract_slices` with the same ``padding``: slices come out as orthonormal spectra.

    Raises
    ------
    InputError
        The volume is no even cube, holds NaN or infinity, or the radius does not fit.
    """
    check_cube(volume.shape, radius, padding)
    if not bool(array_module(volume).isfinite(volume.sum(dtype="float64"))):
        raise InputError("the reference map contains NaN or infinite values: take another map or the last good one")
    return half_cube(correct_gridding(volume, padding), radius, padding=padding, threads=threads)


def check_scale(images: ParticleSpectra, map_box: int, map_pixel_size_A: float) -> None:
    """Refuse a map whose side length differs from that of the images: Fourier pixels would mean other frequencies.

    Box and pixel size may differ (a working box), their product may not, by more than 0.1 %.

    Raises
    ------
    InputError
    """
    sides = images.box * images.pixel_size_A, map_box * map_pixel_size_A
    if not abs(sides[1] / sides[0] - 1) < 1e-3:
        raise InputError(
            f"the reference map has {map_box} voxels of {map_pixel_size_A:g} Å ({sides[1]:g} Å), the images "
            f"{images.box} px of {images.pixel_size_A:g} Å ({sides[0]:g} Å): resample and crop the map to the images "
            "(resize_volume), or correct the pixel size in its header"
        )
