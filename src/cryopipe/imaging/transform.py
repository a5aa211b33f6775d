"""Rotate, shift and mirror a real-space map by spline interpolation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from cryopipe.errors import InputError
from cryopipe.imaging.fourier import cube_box, resample


def rotate_volume(
    volume: np.ndarray,
    rotation: ArrayLike,
    *,
    shift_xyz_px: ArrayLike = (0.0, 0.0, 0.0),
    oversampling: int = 1,
    threads: int = 1,
) -> np.ndarray:
    """Turn a map's content by ``rotation`` about voxel ``n // 2``, then move it by the shift, float32 ``[z, y, x]``.

    ``result(x) = volume(rotationᵀ (x - shift))`` with x measured from the centre. The map is 0 outside its box.

    Parameters
    ----------
    volume : array ``[z, y, x]``
        A cube.
    rotation : array ``[3, 3]``
        Acts on (x, y, z).
    oversampling : int
        Factor of a Fourier padding before the cubic splines. The error of splines is 1 % of the amplitude at 4 voxels per
        period and 0.05 % at 8. Choose the factor so that the finest detail of interest spans 4 voxels or more.
    """
    box = cube_box(volume)
    matrix = np.asarray(rotation, dtype=np.float64)
    if matrix.shape != (3, 3) or not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-6):
        raise InputError(f"the rotation of a map must be one orthonormal matrix [3, 3], not shape {matrix.shape}")
    fine = resample(volume, (box * oversampling,) * 3, centred=True, threads=threads) if oversampling > 1 else volume
    spline = ndimage.spline_filter(np.asarray(fine, dtype=np.float32), order=3, output=np.float32)
    return apply_affine(spline, matrix.T, shift_xyz_px, box, oversampling)


def apply_affine(
    spline: np.ndarray, matrix: np.ndarray, shift_xyz_px: ArrayLike, box: int, oversampling: int = 1
) -> np.ndarray:
    """Return f(matrix (x - shift)) ``[box, box, box]`` float32 from f's cubic spline coefficients.

    Parameters
    ----------
    spline : float32 ``[z, y, x]``
        Cubic spline coefficients of the map (`scipy.ndimage.spline_filter`).
    matrix : ndarray [3, 3]
        Acts on (x, y, z).
    shift_xyz_px : ndarray [3]
        Shift (x, y, z) in pixels.
    box : int
        Edge of the result.
    oversampling : int
        Voxels of the spline per voxel of the result.
    """
    in_order = np.asarray(matrix, dtype=np.float64)[::-1, ::-1] * oversampling
    centre = np.full(3, box // 2, dtype=np.float64)
    fine_centre = np.array([n // 2 for n in spline.shape], dtype=np.float64)
    moved = centre + np.asarray(shift_xyz_px, dtype=np.float64)[::-1]
    return ndimage.affine_transform(
        spline,
        in_order,
        fine_centre - in_order @ moved,
        output_shape=(box, box, box),
        output=np.float32,
        order=3,
        mode="constant",
        prefilter=False,
    )


def invert_hand(volume: Any) -> Any:
    """Return the map of opposite hand: inverted through voxel ``n // 2``, periodic and exact. Symmetry axes stay."""
    result = np.flip(volume)
    even = [axis for axis, n in enumerate(volume.shape) if n % 2 == 0]
    return np.ascontiguousarray(np.roll(result, 1, even) if even else result)


def oversampling_for(resolution_A: float, pixel_size_A: float) -> int:
    """Return the smallest padding factor with which ``resolution_A`` spans 4 voxels (see :func:`rotate_volume`)."""
    return max(1, math.ceil(4.0 * pixel_size_A / resolution_A - 1e-6))
