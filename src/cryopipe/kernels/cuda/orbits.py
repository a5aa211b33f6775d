"""Launches of ``orbits.cu``; the caller has checked shapes and types."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.kernels.cuda._source import THREADS, blocks, function


def sum_over_orbits(
    numerator: Any, weight: Any, radius: int, steps: np.ndarray, first_axis: np.ndarray, conjugate: np.ndarray,
    order: int, limit: np.int64,
) -> None:  # fmt: skip
    """Sum in place; one thread for each voxel of the octant, a sixth of them at work.

    Parameters
    ----------
    numerator, weight, radius, steps, first_axis, conjugate, order, limit
        As in :func:`cryopipe.kernels.cpu.orbits.sum_over_orbits`; CuPy arrays, and NumPy's for the table.
    """
    import cupy

    function("orbits", "sum_over_orbits")(
        (blocks((radius + 1) ** 3),), (THREADS,),
        (numerator, weight, np.int32(radius), cupy.asarray(steps), cupy.asarray(first_axis), cupy.asarray(conjugate),
         np.int32(order), np.int64(limit)),
    )  # fmt: skip


def add_rotated(
    numerator: Any, weight: Any, radius: int, operators: Any, limit: np.float32, total: Any, total_weight: Any
) -> None:
    """Add to ``total`` and ``total_weight`` in place.

    Parameters
    ----------
    numerator, weight, total, total_weight : CuPy array
        As in :func:`cryopipe.kernels.orbits.add_rotated`.
    radius : int
        R: the cubes have [2R+1, 2R+1, R+1] voxels.
    operators : CuPy float32 [m, 3, 3]
        Rotations.
    limit : float32
        Largest squared distance from the origin.
    """
    import cupy

    function("orbits", "add_rotated")(
        (blocks(weight.size),), (THREADS,),
        (numerator, weight, np.int32(radius), cupy.ascontiguousarray(operators), np.int32(len(operators)),
         np.float32(limit), total, total_weight),
    )  # fmt: skip
