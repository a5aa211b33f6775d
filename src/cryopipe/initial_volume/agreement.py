"""Whether two maps from nothing are the same: how far they correlate once one is laid over the other, beyond their profile.

All maps of one particle share its radial profile, right or wrong: maps of a hollow shell in wrong orientations have the
right profile and correlate well with the right map. So the spherical average of each map is taken away first. What is
left of maps from different starts agrees only if both found the orientations: starts have nothing else in common.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopipe.imaging.alignment import align_map
from cryopipe.imaging.fsc import fourier_shell_correlation
from cryopipe.imaging.masks import radius_grid
from cryopipe.imaging.symmetry import parse_group
from cryopipe.imaging.transform import invert_hand
from cryopipe.projection.working_box import resize_map, working_box

#: groups whose axes leave one frame for a map: it can differ from another one by its hand alone
_ONE_FRAME = ("O", "I")
#: Outermost shell of an alignment in an open frame, whose time grows with the fourth power of it (1.5 s at 9 shells, 6 s at 15);
#: in a box of 1.5 diameters it is an eighth of the diameter, beyond what two different particles have in common
_ALIGNED_SHELLS = 12


def without_profile(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a map minus its spherical average about the centre; shells are one voxel thick."""
    shell = np.rint(radius_grid(volume.shape)).astype(np.int64)
    count = np.bincount(shell.ravel())
    profile = np.bincount(shell.ravel(), volume.ravel()) / np.maximum(count, 1)
    return (volume - profile[shell]).astype(np.float32)


def agreement(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    *,
    pixel_size_A: float,
    resolution_A: float,
    symmetry: str,
    threads: int = 1,
) -> float:
    """Return the FSC of two maps without their profiles, averaged over Fourier voxels, in their best relative position.

    Parameters
    ----------
    first, second : array float32 [z, y, x]
        Any hand; in groups that leave the frame open (C1, Cn, Dn, T) any frame.
    pixel_size_A : float
    resolution_A : float
        To which it is averaged; in groups that leave the frame open to shell 12 of the box at most.
    symmetry : str
        Point group of both.
    threads : int
        CPU threads.
    """
    box = first.shape[0]
    radius = min(int(box * pixel_size_A / resolution_A), box // 2 - 1)
    a, b = without_profile(first), without_profile(second)
    if parse_group(symmetry).startswith(_ONE_FRAME):
        weight = np.arange(1, radius + 1) ** 2.0
        curves = [fourier_shell_correlation(hand, b, threads=threads)[1 : radius + 1] for hand in (a, invert_hand(a))]
        return max(float(curve @ weight / weight.sum()) for curve in curves)
    radius = min(radius, _ALIGNED_SHELLS)
    small = working_box(radius, largest=box, oversampling=1.1)
    moving, fixed = resize_map(a, small, threads=threads), resize_map(b, small, threads=threads)
    found = align_map(
        moving,
        fixed,
        pixel_size_A * box / small,
        resolution_A=box * pixel_size_A / radius,
        symmetry=symmetry,
        allow_hand=True,
        threads=threads,
    )
    return found.correlation
