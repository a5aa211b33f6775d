"""Whether two maps from independent starts are the same: their correlation after alignment and without their radial profiles.

All maps of one particle have its radial profile, even if the orientations are wrong. For example, a map of a hollow shell from
wrong orientations correlates well with the right map. Therefore the spherical average of each map is subtracted first. The
rest of two maps from different starts agrees only if both runs found the orientations, because the starts have nothing else in
common.
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

#: groups whose axes determine the frame of a map completely: two maps can differ only by their hand
_ONE_FRAME = ("O", "I")
#: Outermost shell of an alignment where the frame is not determined. The time grows with its fourth power (1.5 s at 9 shells,
#: 6 s at 15). In a box of 1.5 diameters this shell is an eighth of the diameter, finer than what two different particles have
#: in common.
_ALIGNED_SHELLS = 12


def without_profile(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a map minus its spherical average about the centre. Shells are one voxel thick."""
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
        Maps of any hand. In groups that do not determine the frame (C1, Cn, Dn, T), maps may have any frame.
    pixel_size_A : float
    resolution_A : float
        Finest resolution of the average. In groups that do not determine the frame, shells beyond 12 are not used.
    symmetry : str
        Point group of both maps.
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
