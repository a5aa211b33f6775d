"""Bring a map into the frame and hand of a reference. For groups with fixed axes only the hand must be found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopipe.imaging.alignment import align_map
from cryopipe.imaging.fsc import fourier_shell_correlation
from cryopipe.imaging.symmetry import parse_group
from cryopipe.imaging.transform import invert_hand, rotate_volume


@dataclass(frozen=True)
class Frame:
    """A rigid change of frame: inversion through the centre if ``mirrored``, rotation, then shift (x, y, z; px)."""

    rotation: NDArray[np.float64]
    shift_xyz_px: NDArray[np.float64]
    mirrored: bool

    def apply(self, volume: NDArray[np.float32], *, threads: int = 1) -> NDArray[np.float32]:
        """Return the map in the new frame. If only the hand changes, there is no interpolation."""
        if self.mirrored:
            volume = invert_hand(volume)
        if np.array_equal(self.rotation, np.eye(3)) and not self.shift_xyz_px.any():
            return volume
        result: NDArray[np.float32] = rotate_volume(
            volume, self.rotation, shift_xyz_px=self.shift_xyz_px, oversampling=2, threads=threads
        )
        return result


def find_frame(
    moving: NDArray[np.float32],
    reference: NDArray[np.float32],
    pixel_size_A: float,
    *,
    symmetry: str,
    same_axes: bool,
    allow_hand: bool = True,
    resolution_A: float = 10.0,
    threads: int = 1,
) -> Frame:
    """Find the frame in which a map fits a reference best.

    Parameters
    ----------
    moving, reference : array float32 [z, y, x]
        Maps with the same box and pixel size.
    pixel_size_A : float
        Å.
    symmetry : str
        Point group of the reference.
    same_axes : bool
        Whether both maps have their symmetry axes in the standard setting. For O and I, whose normaliser in SO(3) is the
        group itself, only the hand must then be found.
    allow_hand : bool
        Whether the map may be inverted.
    resolution_A : float
        Resolution at which the fit is judged.
    threads : int
        Threads.
    """
    if same_axes and parse_group(symmetry)[0] in "OI":
        last = max(int(reference.shape[0] * pixel_size_A / resolution_A), 2)
        shells = np.arange(1, last + 1)

        def score(volume: NDArray[np.float32]) -> float:
            curve = fourier_shell_correlation(volume, reference, threads=threads)[1 : last + 1]
            return float((curve * shells**2).sum())

        mirrored = allow_hand and score(invert_hand(moving)) > score(moving)
        return Frame(np.eye(3), np.zeros(3), mirrored)
    found = align_map(
        moving,
        reference,
        pixel_size_A,
        resolution_A=max(resolution_A, 2.5 * pixel_size_A),
        symmetry=symmetry,
        allow_hand=allow_hand,
        threads=threads,
    )
    return Frame(found.rotation, found.shift_xyz_px, found.mirrored)
