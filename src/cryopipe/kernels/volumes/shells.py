"""Sums of a half cube over shells round(|k| / padding), plane by plane: threads do not change their order.

A half cube of radius R has the shape ``[2R+1, 2R+1, R+1]`` (z, y, x), its centre at ``[R, R, 0]``.
"""

from __future__ import annotations

import numpy as np

from cryopipe.kernels._dispatch import check, check_on_cpu
from cryopipe.kernels.cpu.volumes import shells as cpu


def plane_sums(weight: np.ndarray, radius: int, padding: int) -> np.ndarray:
    """Return the sums of ``weight`` float32 (a half cube) over shells 0 to ``radius``: float64 ``[planes, radius + 1]``.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, or an array of the GPU.
    """
    check_on_cpu(weight=weight)
    check("weight", weight, np.float32, (None, None, None))
    total = np.zeros((len(weight), radius + 1))
    cpu.plane_sums(weight, radius, np.float32(1 / padding), total)
    return total


def plane_counts(edge: int, radius: int, padding: int) -> np.ndarray:
    """Return how many voxels of a half cube of radius ``edge`` lie in shells 0 to ``radius``: ``[planes, radius + 1]``."""
    total = np.zeros((2 * edge + 1, radius + 1))
    cpu.plane_counts(edge, radius, np.float32(1 / padding), total)
    return total
