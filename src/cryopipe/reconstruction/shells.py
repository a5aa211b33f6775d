"""The shell of each voxel of a half cube, and the mean weight of shells."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module, to_numpy
from cryopipe.kernels.volumes import shells
from cryopipe.projection.half_cube import chunks


def shell_means(weight: Any, radius: int, padding: int) -> np.ndarray:
    """Return the mean of a half cube float32 ``[2R+1, 2R+1, R+1]`` over each shell round(|k|/padding), float64.

    The result has ``radius + 1`` entries. The sums are made plane by plane, so threads do not change them.
    """
    members = shell_counts(weight.shape[2] - 1, radius, padding)
    if array_module(weight) is np:
        return np.asarray(shells.plane_sums(weight, radius, padding).sum(axis=0) / members)
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
    found: np.ndarray = shells.plane_counts(edge, radius, padding).sum(axis=0)
    found.setflags(write=False)
    return found


def shell_numbers(cube: Any, part: slice, padding: int) -> Any:
    """Return the shell round(|k|/padding) of every voxel of ``cube[:, part]``, int32."""
    xp = array_module(cube)
    edge = cube.shape[2] - 1
    k = xp.arange(-edge, edge + 1, dtype=np.float32)
    squared = k[:, None, None] ** 2 + k[None, part, None] ** 2 + k[None, None, edge:] ** 2
    return xp.floor(xp.sqrt(squared) * np.float32(1 / padding) + np.float32(0.5)).astype(np.int32)


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
