"""Insertion of prepared slices, with the copies that a point group needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.imaging.backend import array_module
from cryopipe.kernels.slices import insert_slices
from cryopipe.reconstruction.symmetrise import SymmetryPlan


def insert_copies(
    numerator: Any,
    weight: Any,
    plan: SymmetryPlan,
    slices: tuple[Any, Any],
    rotations: np.ndarray,
    frequencies: tuple[np.ndarray, np.ndarray],
    *,
    padding: int,
    ordered: bool,
) -> None:
    """Add slices to the accumulators at their poses and at the equivalent poses.

    Parameters
    ----------
    numerator, weight : complex64, float32 [2R+1, 2R+1, R+1]
        Accumulators, changed in place.
    plan : SymmetryPlan
        States which copies are inserted, and which are made from the volumes later.
    slices : pair of complex64 [n, K], float32 [n, K]
        Values and their weights.
    rotations : float32 [n, 3, 3]
        Poses A.
    frequencies : pair of int [K]
        kx and ky of the slices, in Fourier pixels.
    padding : int
        Sampling of the accumulators.
    ordered : bool
        On a GPU: insert in a fixed order.
    """
    xp = array_module(numerator, *slices)
    kx, ky = (xp.asarray(k) for k in frequencies)
    values, information = (xp.ascontiguousarray(part) for part in slices)
    cosets = plan.cosets[:1] if plan.rotates_volumes else plan.cosets
    # All copies of an image are neighbours, so that batches of images do not change the order of sums.
    poses = xp.asarray((rotations[:, None].astype(np.float64) @ cosets).astype(np.float32))
    insert_slices(numerator, weight, poses, values, information, kx, ky, padding=padding, ordered=ordered)
