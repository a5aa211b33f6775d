"""The shell of each voxel of a half cube, and the mean weight of shells."""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module, to_numpy
from cryopipe.projection.half_cube import chunks


def shell_means(weight: Any, radius: int, padding: int) -> np.ndarray:
    """Return the mean of a half cube float32 ``[2R+1, 2R+1, R+1]`` over each shell round(|k|/padding), float64.

    The result has ``radius + 1`` entries. The sums are made plane by plane, so threads do not change them.
    """
    members = shell_counts(weight.shape[2] - 1, radius, padding)
    if array_module(weight) is np:
        total = np.zeros((len(weight), radius + 1))
        _plane_sums(weight, radius, np.float32(1 / padding), total)
        return np.asarray(total.sum(axis=0) / members)
    xp = array_module(weight)
    sums = np.zeros(radius + 1)
    for part in chunks(weight.shape[1], 24 * weight.shape[0] * weight.shape[2]):
        shell = shell_numbers(weight, part, padding)
        inside = shell <= radius
        values = weight[:, part][inside].astype(np.float64)
        sums += to_numpy(xp.bincount(shell[inside], values, radius + 1))
    return sums / members


@functools.lru_cache(maxsize=16)
def shell_counts(edge: int, radius: int, padding: int) -> np.ndarray:
    """Return the number of voxels in each shell round(|k|/padding) of a half cube of radius ``edge``, float64."""
    total = np.zeros((2 * edge + 1, radius + 1))
    _plane_counts(edge, radius, np.float32(1 / padding), total)
    found: np.ndarray = total.sum(axis=0)
    found.setflags(write=False)
    return found


def shell_numbers(cube: Any, part: slice, padding: int) -> Any:
    """Return the shell round(|k|/padding) of every voxel of ``cube[:, part]``, int32."""
    xp = array_module(cube)
    edge = cube.shape[2] - 1
    k = xp.arange(-edge, edge + 1, dtype=np.float32)
    squared = k[:, None, None] ** 2 + k[None, part, None] ** 2 + k[None, None, edge:] ** 2
    return xp.floor(xp.sqrt(squared) * np.float32(1 / padding) + np.float32(0.5)).astype(np.int32)


@numba.njit(cache=True, inline="always")
def row_shells(far, limit, scale, shell):  # type: ignore[no-untyped-def]
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


@numba.njit(cache=True, parallel=True)
def _plane_sums(weight, radius, scale, total):  # type: ignore[no-untyped-def]
    edge = weight.shape[2] - 1
    for plane in numba.prange(weight.shape[0]):
        shell = np.empty(edge + 1, np.int32)
        sums = np.zeros(radius + 2)
        for row in range(weight.shape[1]):
            count = row_shells((plane - edge) ** 2 + (row - edge) ** 2, radius, scale, shell)
            for column in range(count):
                sums[min(shell[column], radius + 1)] += weight[plane, row, column]
        total[plane] = sums[: radius + 1]


@numba.njit(cache=True, parallel=True)
def _plane_counts(edge, radius, scale, total):  # type: ignore[no-untyped-def]
    for plane in numba.prange(2 * edge + 1):
        shell = np.empty(edge + 1, np.int32)
        for row in range(2 * edge + 1):
            count = row_shells((plane - edge) ** 2 + (row - edge) ** 2, radius, scale, shell)
            for column in range(count):
                if shell[column] <= radius:
                    total[plane, shell[column]] += 1


def usable_means(mean_weight: np.ndarray, n_images: int) -> np.ndarray:
    """Check that a map can be made from the mean weights of the shells, and return them.

    Raises
    ------
    InputError
        No shell has any weight, or one is not finite.
    """
    if not mean_weight.any():
        raise InputError(
            f"a reconstruction of {n_images} images has no weight in any shell, so it gives no map. Check that "
            "each half set has particles and that their weights are not all zero."
        )
    if not np.isfinite(mean_weight).all():
        shell = int(np.flatnonzero(~np.isfinite(mean_weight))[0])
        raise InputError(f"the weight of shell {shell} is {mean_weight[shell]}. Insert only finite values and weights.")
    return mean_weight
