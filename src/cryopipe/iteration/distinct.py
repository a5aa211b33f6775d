"""The best orientations of a search that lie apart from each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopipe.imaging.geometry import angular_distance_deg


def distinct(
    rotations: NDArray[np.float64],
    operators: NDArray[np.float64],
    apart_deg: float,
    count: int,
    known: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """Return for each image the places of ``count`` orientations, best first, that lie apart: int64 ``[n, count]``.

    The best points of a grid are neighbours of each other, and followed continuously they end in one pose. Where fewer lie
    apart, the best of the others fill the list.

    Parameters
    ----------
    rotations : array float64 [n, m, 3, 3]
        Best first.
    operators : array float64 [g, 3, 3]
        Point group.
    apart_deg : float
        Least angle between two of the chosen ones.
    count : int
        At most m.
    known : array float64 [n, 3, 3], optional
        The chosen ones lie apart from these as well.
    """
    n, m = rotations.shape[:2]
    free = np.ones((n, m), bool)
    row, order = np.arange(n), np.empty((n, count), np.int64)
    taken = np.zeros((n, m), bool)

    def leave_out(pose: NDArray[np.float64]) -> None:
        for j in range(m):
            near = angular_distance_deg(rotations[:, j], pose, operators) < apart_deg
            free[:, j] &= ~near

    if known is not None:
        leave_out(known)
    for place in range(count):
        # the first that is free; else the first that is not taken
        rank = np.where(free, 0, m) + np.where(taken, 2 * m, 0) + np.arange(m)
        order[:, place] = rank.argmin(axis=1)
        taken[row, order[:, place]] = True
        free[row, order[:, place]] = False
        if place + 1 < count:
            leave_out(rotations[row, order[:, place]])
    return order
