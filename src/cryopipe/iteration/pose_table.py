"""Poses of particles, as arrays and as the columns of a particle table."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopipe.imaging.geometry import matrix_to_euler
from cryopipe.imaging.symmetry import reduce_to_asymmetric_unit
from cryopipe.io.star import StarTable

POSE_COLUMNS = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")


@dataclass(frozen=True, eq=False)
class Poses:
    """Poses of n particles, one row each.

    Attributes
    ----------
    rotations : array float64 [n, 3, 3]
    shifts_px : array float64 [n, 2]
        (x, y) applied to centre the image.
    confidence : array float64 [n]
        Likelihood of the pose over that of all distinct candidates of the last global search.
    log_likelihood : array float64 [n]
        Relative to noise alone.
    """

    rotations: NDArray[np.float64]
    shifts_px: NDArray[np.float64]
    confidence: NDArray[np.float64]
    log_likelihood: NDArray[np.float64]

    @classmethod
    def centred(cls, shifts_px: NDArray[np.float64]) -> Poses:
        """Return poses before any search: no rotation, shifts [n, 2] as far as they are known, no confidence."""
        n = len(shifts_px)
        return cls(np.tile(np.eye(3), (n, 1, 1)), shifts_px, np.zeros(n), np.zeros(n))

    def __len__(self) -> int:
        return len(self.rotations)

    def subset(self, rows: Any) -> Poses:
        """Return copies of the poses at ``rows``."""
        return Poses(*(getattr(self, field.name)[rows].copy() for field in fields(self)))

    def put(self, rows: Any, poses: Poses, which: Any = slice(None)) -> None:
        """Write the poses ``which`` of others to ``rows``, in place."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(poses, field.name)[which]


def pose_columns(
    rotations: NDArray[np.float64], shifts_px: NDArray[np.float64], *, symmetry: str, pixel_size_A: float
) -> dict[str, NDArray[np.float64]]:
    """Return the columns `POSE_COLUMNS` of poses, moved into the asymmetric unit.

    Parameters
    ----------
    rotations : array float64 [n, 3, 3]
    shifts_px : array float64 [n, 2]
        (x, y) applied to centre the image.
    symmetry : str
        Point group.
    pixel_size_A : float
        Pixel size of the images whose shifts these are.
    """
    angles = matrix_to_euler(reduce_to_asymmetric_unit(rotations, symmetry))
    return dict(zip(POSE_COLUMNS, (*angles.T, *(shifts_px * pixel_size_A).T), strict=True))


def with_poses(
    table: StarTable,
    rotations: NDArray[np.float64],
    shifts_px: NDArray[np.float64],
    *,
    symmetry: str,
    pixel_size_A: float,
    **columns: Any,
) -> StarTable:
    """Return the table with poses in the asymmetric unit, and with further columns.

    Parameters
    ----------
    table : StarTable
        Particles.
    rotations, shifts_px, symmetry, pixel_size_A
        As for `pose_columns`, one row per particle of the table.
    **columns
        Further columns by name.
    """
    poses = pose_columns(rotations, shifts_px, symmetry=symmetry, pixel_size_A=pixel_size_A)
    return table.with_rows(table.rows.assign(**poses, **columns))
