"""Which shell a voxel of a half cube lies in, and sums over shells, plane by plane."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit, prange


@njit(cache=True, inline="always")
def row_shells(far, limit, scale, shell):
    """Fill the shells of the columns of a row, and return how many columns can be within ``limit`` shells.

    This loop is a separate function, because the compiler then vectorises it.

    Parameters
    ----------
    far : int
        Squared distance of the row from the origin along the other two axes, in voxels of the padded cube.
    limit : int
        Outermost shell that is needed.
    scale : float32
        One over the padding factor.
    shell : ndarray ``[columns]`` int32
        Filled with round(|k| scale) for the number of columns that is returned. The rest is not changed.
    """
    beyond = np.float64(limit + 1) / scale
    if far >= beyond * beyond:
        return 0
    count = min(shell.size, int(np.sqrt(beyond * beyond - far)) + 1)
    for column in range(count):
        shell[column] = np.int32(np.sqrt(np.float32(far + column * column)) * scale + np.float32(0.5))
    return count


@njit(cache=True, parallel=True)
def plane_sums(weight, radius, scale, total):
    """Fill ``total`` with the sums over the shells of each plane.

    Parameters
    ----------
    weight : float32 [2R+1, 2R+1, R+1]
        Half cube.
    radius : int
        Outermost shell.
    scale : float32
        One over the padding factor.
    total : float64 [planes, radius + 1]
        Receives the sums.
    """
    edge = weight.shape[2] - 1
    for plane in prange(weight.shape[0]):
        shell = np.empty(edge + 1, np.int32)
        sums = np.zeros(radius + 2)
        for row in range(weight.shape[1]):
            count = row_shells((plane - edge) ** 2 + (row - edge) ** 2, radius, scale, shell)
            for column in range(count):
                sums[min(shell[column], radius + 1)] += weight[plane, row, column]
        total[plane] = sums[: radius + 1]


@njit(cache=True, parallel=True)
def plane_counts(edge, radius, scale, total):
    """Count the voxels of each plane in each shell.

    Parameters
    ----------
    edge, radius : int
        Radius of the half cube, and outermost shell.
    scale : float32
        One over the padding factor.
    total : float64 [planes, radius + 1]
        The counts are added to it.
    """
    for plane in prange(2 * edge + 1):
        shell = np.empty(edge + 1, np.int32)
        for row in range(2 * edge + 1):
            count = row_shells((plane - edge) ** 2 + (row - edge) ** 2, radius, scale, shell)
            for column in range(count):
                if shell[column] <= radius:
                    total[plane, shell[column]] += 1
