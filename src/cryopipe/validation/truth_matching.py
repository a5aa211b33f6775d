"""Pair picked particles with the true ones of a simulation, and measure the errors of their poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryopipe.imaging.geometry import angular_distance_deg


@dataclass(frozen=True)
class Matching:
    """One-to-one pairs of picked and true particles.

    Attributes
    ----------
    truth : array int64 [n]
        Row of the true particle of each pick, or -1 if there is none within the radius.
    found : array bool [m]
        Whether each true particle was picked.
    """

    truth: NDArray[np.int64]
    found: NDArray[np.bool_]


def match_particles(
    items: NDArray[np.object_],
    positions_A: NDArray[np.float64],
    true_items: NDArray[np.object_],
    true_positions_A: NDArray[np.float64],
    *,
    radius_A: float,
) -> Matching:
    """Pair picks with true particles of the same micrograph, nearest pairs first, each at most once.

    Parameters
    ----------
    items, true_items : array of str [n], [m]
        Micrograph of each.
    positions_A, true_positions_A : array [n, 2], [m, 2]
        x, y in Å on the micrograph.
    radius_A : float
        Largest distance of a pair.
    """
    truth = np.full(len(items), -1, dtype=np.int64)
    found = np.zeros(len(true_items), dtype=bool)
    for item in sorted(set(items) & set(true_items)):
        own, other = np.flatnonzero(items == item), np.flatnonzero(true_items == item)
        near = cKDTree(true_positions_A[other]).query_ball_point(positions_A[own], radius_A)
        pairs = [(i, other[j]) for i, hits in zip(own, near, strict=True) for j in hits]
        distance = [float(np.linalg.norm(positions_A[i] - true_positions_A[j])) for i, j in pairs]
        for at in np.argsort(distance, kind="stable"):
            i, j = pairs[at]
            if truth[i] < 0 and not found[j]:
                truth[i], found[j] = j, True
    return Matching(truth, found)


def pose_errors_deg(
    rotations: NDArray[np.float64],
    true_rotations: NDArray[np.float64],
    *,
    operators: NDArray[np.float64],
    map_to_truth: NDArray[np.float64],
    mirrored: bool,
) -> NDArray[np.float64]:
    """Return the angle between estimated and true poses in degrees, modulo symmetry, in the truth's frame and hand.

    Parameters
    ----------
    rotations, true_rotations : array [n, 3, 3]
        Pose matrices.
    operators : array [g, 3, 3]
        Symmetry of the particle in the truth's frame.
    map_to_truth : array [3, 3]
        Rotation R of coordinates that takes the (possibly mirrored) map onto the truth. A pose A becomes ``A R^T``.
    mirrored : bool
        Whether the map had to be inverted through its centre. A pose of the inverted map is ``diag(-1, -1, 1) A``, because
        an image determines the pose only together with the hand.
    """
    poses = np.asarray(rotations, dtype=np.float64)
    if mirrored:
        poses = np.diag([-1.0, -1.0, 1.0]) @ poses
    return np.asarray(angular_distance_deg(poses @ map_to_truth.T, true_rotations, operators))


def spread(values: NDArray[np.float64]) -> dict[str, float | None]:
    """Return median and 90th percentile of the absolute values. Both are None if there are no values."""
    if len(values) == 0:
        return {"median": None, "p90": None}
    size = np.abs(values)
    return {"median": round(float(np.median(size)), 4), "p90": round(float(np.percentile(size, 90)), 4)}
