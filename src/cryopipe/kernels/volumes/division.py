"""Quotients of a half cube, in which no voxel counts less than a share of what lies about it.

With W and N the weight and the numerator smoothed by [1 2 1]/4 along each axis, and q = max(least W - w, 0) / W, the
quotient is (n + q N) / (max(w + q W, floor) + regulariser). `cryopipe.reconstruction.division` says why.
"""

from __future__ import annotations

import numpy as np

from cryopipe.kernels._dispatch import check, check_on_cpu
from cryopipe.kernels.cpu.volumes import division as cpu


def divide(
    numerator: np.ndarray,
    weight: np.ndarray,
    part: slice,
    floor: np.ndarray,
    regulariser: np.ndarray,
    *,
    padding: int,
    least_share: float,
) -> np.ndarray:
    """Return rows ``part`` of the quotient, complex64 ``[2R+1, part, R+1]``; zero beyond the last shell.

    Parameters
    ----------
    numerator, weight : complex64, float32 [2R+1, 2R+1, R+1]
        Half cubes; beyond their edge they count as zero, at kx = -1 they are the Friedel mates of kx = 1.
    part : slice
        Rows ky.
    floor, regulariser : float32 [shells]
        Least divisor, and what is added to it, by shell round(|k| / padding).
    padding : int
        Voxels of the half cube for each Fourier pixel of the images.
    least_share : float
        Least weight of a voxel as a share of the smoothed weight about it.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, or an array of the GPU.
    """
    check_on_cpu(numerator=numerator, weight=weight, floor=floor, regulariser=regulariser)
    check("numerator", numerator, np.complex64, weight.shape)
    check("weight", weight, np.float32, (None, None, None))
    check("floor", floor, np.float32, (None,))
    check("regulariser", regulariser, np.float32, floor.shape)
    quotient = np.zeros((weight.shape[0], part.stop - part.start, weight.shape[2]), np.complex64)
    scale, least = np.float32(1 / padding), np.float32(least_share)
    cpu.divide(numerator, weight, part.start, floor, regulariser, scale, least, quotient)
    return quotient
