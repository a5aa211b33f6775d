"""Local motion as a smooth field of shifts over the frame and time, and the patches in which it is measured.

The model is FlexAlign's (Střelák et al. 2020, doi:10.3390/electronics9061040): a cubic B-spline over (x, y, t). The
field is zero in the reference frame. Patches are about 500 Å wide. :mod:`cryopipe.movies.motion.joint_motion` fits it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryopipe.kernels.warp import node_count

#: With fewer patches along a side the cubic field is not determined.
_FEWEST_PATCHES = 4
#: Neighbouring patches overlap by the width of their taper, a sixteenth of their side.
_OVERLAP = 1.0 / 16.0
#: Steps of a twelfth of the exposure are fine enough for the bending of a specimen, whatever the number of frames.
_MOST_TIMES = 12


@dataclass(frozen=True)
class LocalMotion:
    """Field of local shifts, in addition to the global ones.

    Attributes
    ----------
    coefficients : ndarray ``[2, lt, ly, lx]``
        Of the cubic B-spline, (x, y) in unbinned pixels; control points from one spacing before the first pixel.
    shape : tuple of int
        Frames and frame (n, y, x).
    reference : int
        Frame whose field is zero.
    residual_px : float
        Root mean square deviation, per axis, of the patches' shifts from the field beyond their noise.
    patches : tuple of int
        Along (y, x).
    """

    coefficients: np.ndarray
    shape: tuple[int, int, int]
    reference: int
    residual_px: float
    patches: tuple[int, int]

    def at(self, frame: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the shifts (x, y) to apply at rows ``y`` [a] and columns ``x`` [b] of ``frame``: ``[2, a, b]``."""
        _, lt, ly, lx = self.coefficients.shape
        n, ny, nx = self.shape
        time = spline_values(np.array([frame, self.reference], dtype=np.float64), n, lt)
        plane = np.einsum("t,ctyx->cyx", time[0] - time[1], self.coefficients)
        rows, columns = spline_values(y, ny, ly), spline_values(x, nx, lx)
        field: np.ndarray = np.einsum("ay,cyx,bx->cab", rows, plane, columns, optimize=True)
        return field

    def nodes(self, frame: int, spacing: int) -> np.ndarray:
        """Return the field ``[2, gy, gx]`` of ``frame`` at nodes ``spacing`` pixels apart, as the warp needs it."""
        y, x = (spacing * np.arange(node_count(length, spacing), dtype=np.float64) for length in self.shape[1:])
        return self.at(frame, np.minimum(y, self.shape[1] - 1), np.minimum(x, self.shape[2] - 1))


def spline_values(position: np.ndarray, length: int, count: int) -> np.ndarray:
    """Return the ``count`` cubic B-splines over 0..length-1 at ``position`` [p]: ``[p, count]``."""
    spacing = max(length - 1, 1) / (count - 3)
    distance = np.abs(np.asarray(position, dtype=np.float64)[:, None] / spacing - (np.arange(count) - 1.0))
    near = 2 / 3 - distance**2 * (1 - distance / 2)
    far = np.maximum(2 - distance, 0.0) ** 3 / 6
    return np.where(distance < 1, near, far)


def control_points(shape: tuple[int, int, int], pixel_size_A: float, patches: tuple[int, int]) -> tuple[int, int, int]:
    """Return FlexAlign's numbers of control points along (t, y, x), never more than there are patches."""
    n, ny, nx = shape
    space = [
        min(max(int(length * pixel_size_A / 1000) + 2, _FEWEST_PATCHES), count)
        for length, count in zip((ny, nx), patches, strict=True)
    ]
    return min(max(-(-n // 7) + 2, 4), _MOST_TIMES), space[0], space[1]


def patch_layout(
    shape: tuple[int, int], pixel_size_A: float, patch_A: float, margin_px: float
) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Return first rows and columns of the patches and their side, in pixels, or None if the frame is too small.

    The patches overlap and cover the frame except for a margin at its borders.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns (y, x) of a frame.
    pixel_size_A : float
        Of the frame.
    patch_A : float
        Side of a patch, Å, at most.
    margin_px : float
        Width of the border without patches, which global motion moves out of the frame.
    """
    wanted = int(patch_A / pixel_size_A)
    if min(shape) - 2 * margin_px < 1.5 * wanted:
        return None
    counts = [max(_FEWEST_PATCHES, int(np.ceil(length / wanted))) for length in shape]
    # the few patches of a small frame are smaller, because an area in two patches would count twice
    side = min(
        wanted, *(int(length / (count - (count - 1) * _OVERLAP)) for length, count in zip(shape, counts, strict=True))
    )
    starts = [np.linspace(margin_px, length - margin_px - side, n) for length, n in zip(shape, counts, strict=True)]
    return starts[0], starts[1], side
