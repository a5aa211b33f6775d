"""A tree of pose cells: HEALPix pixels in nested order x in-plane intervals x squares of shifts, each cut in two an axis.

A cell at some level holds its 8 orientation children and 4 shift children exactly, so a search that keeps the parents
of a pose keeps the pose. The in-plane angle is counted from a frame that is carried along with the pixel from its
parent's centre without twist (parallel transport); Euler angles would turn it by up to 45° inside a cell at a pole.

Nested HEALPix: Górski et al. 2005, doi:10.1086/427976, section 4.
"""

from __future__ import annotations

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.geometry import euler_to_matrix
from cryopipe.imaging.symmetry import in_asymmetric_unit, parse_group, symmetry_operators

_RING = np.array([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4])
_TURN = np.array([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])
_SHARE_LEVELS = 3


def nested_directions(order: int, pixels: np.ndarray) -> np.ndarray:
    """Return the centres of HEALPix pixels given by nested number: unit vectors (x, y, z), float64 ``[d, 3]``."""
    side = np.int64(1) << order
    pixels = np.asarray(pixels, np.int64)
    face, inside = np.divmod(pixels, side * side)
    x, y = (sum(((inside >> (2 * bit + odd)) & 1) << bit for bit in range(max(order, 1))) for odd in (0, 1))
    ring = _RING[face] * side - x - y - 1
    from_pole = np.minimum(np.minimum(ring, 4 * side - ring), side)
    cap = 1 - from_pole**2 / (3.0 * side**2)
    belt = (2.0 * side - ring) * 2 / (3.0 * side)
    z = np.where(ring < side, cap, np.where(ring > 3 * side, -cap, belt))
    displaced = np.where(from_pole < side, 0, (ring - side) & 1)
    number = (_TURN[face] * from_pole + x - y + 1 + displaced) // 2
    azimuth = (number - (displaced + 1) * 0.5) * (np.pi / 2) / from_pole
    across = np.sqrt(1 - z * z)
    return np.stack([across * np.cos(azimuth), across * np.sin(azimuth), z], axis=1)


class OrientationTree:
    """The cells of a point group's asymmetric unit, level by level from a root order.

    A cell of HEALPix order l is an int64 number: pixel x (6 x 2^l) + in-plane interval.

    Parameters
    ----------
    root_order : int
        HEALPix order of the first level.
    symmetry : str
        Point group.
    rotation : ndarray [3, 3], optional
        Displaces all poses: A becomes ``rotation @ A`` (`cryopipe.search.grid.random_displacement`).
    """

    def __init__(self, root_order: int, symmetry: str = "C1", *, rotation: np.ndarray | None = None) -> None:
        if not 0 <= root_order <= 4:
            raise InputError(f"root order {root_order}: a tree of cells starts at order 0 (60°) to 4 (3.75°)")
        self.root_order = root_order
        self.group = parse_group(symmetry)
        self.operators = symmetry_operators(self.group)
        self.rotation = np.eye(3) if rotation is None else np.asarray(rotation, np.float64)

    def roots(self) -> np.ndarray:
        """Return the cells of the root level that reach into the asymmetric unit, ascending int64."""
        pixels = np.arange(12 * 4**self.root_order, dtype=np.int64)
        pixels = pixels[self.shares(self.root_order, pixels) > 0]
        turns = in_plane_intervals(self.root_order)
        return (pixels[:, None] * turns + np.arange(turns)).ravel()

    def children(self, order: int, cells: np.ndarray) -> np.ndarray:
        """Return the 8 children ``[c, 8]`` (level ``order + 1``) of cells of a level."""
        pixel, turn = np.divmod(np.asarray(cells, np.int64), in_plane_intervals(order))
        inner = 4 * pixel[:, None, None] + np.arange(4)[:, None]
        return (inner * in_plane_intervals(order + 1) + 2 * turn[:, None, None] + np.arange(2)).reshape(-1, 8)

    def shares(self, order: int, pixels: np.ndarray) -> np.ndarray:
        """Return which part of each pixel lies inside the asymmetric unit (equivalents share borders), float64."""
        if self.group == "C1":
            return np.ones(len(pixels))
        finer = 4**_SHARE_LEVELS
        inner = (np.asarray(pixels, np.int64)[:, None] * finer + np.arange(finer)).ravel()
        directions = nested_directions(order + _SHARE_LEVELS, inner)
        inside = np.asarray(in_asymmetric_unit(directions, self.group))
        part = inside.astype(np.float64)
        chosen = directions[inside]
        part[inside] = 1 / np.sum([in_asymmetric_unit(chosen @ g, self.group) for g in self.operators], axis=0)
        return part.reshape(-1, finer).mean(axis=1)

    def inside(self, order: int, cells: np.ndarray) -> np.ndarray:
        """Return which cells reach into the asymmetric unit, bool."""
        pixel, place = np.unique(np.asarray(cells, np.int64) // in_plane_intervals(order), return_inverse=True)
        return (self.shares(order, pixel) > 0)[place].reshape(np.shape(cells))

    def rotations(self, order: int, cells: np.ndarray) -> np.ndarray:
        """Return the poses at the centres of cells, float64 ``[c, 3, 3]``."""
        pixel, turn = np.divmod(np.asarray(cells, np.int64), in_plane_intervals(order))
        unique, place = np.unique(pixel, return_inverse=True)
        psi = np.radians((turn + 0.5) * 360 / in_plane_intervals(order))
        spin = np.zeros((len(psi), 3, 3))
        spin[:, 0, 0] = spin[:, 1, 1] = np.cos(psi)
        spin[:, 0, 1] = np.sin(psi)  # Rz of the convention: new axes in the old frame
        spin[:, 1, 0] = -np.sin(psi)
        spin[:, 2, 2] = 1
        return self.rotation @ spin @ self._frames(order, unique)[place]

    def _frames(self, order: int, pixels: np.ndarray) -> np.ndarray:
        """Return the frames of pixels, carried down from their root pixels."""
        view = nested_directions(self.root_order, pixels >> 2 * (order - self.root_order))
        rot, tilt = np.degrees(np.arctan2(view[:, 1], view[:, 0])), np.degrees(np.arccos(np.clip(view[:, 2], -1, 1)))
        frame = euler_to_matrix(rot, tilt, np.zeros(len(view)))
        for level in range(self.root_order + 1, order + 1):
            finer = nested_directions(level, pixels >> 2 * (order - level))
            frame = np.einsum("nij,nkj->nik", frame, _least_rotation(view, finer))
            view = finer
        return frame


def in_plane_intervals(order: int) -> int:
    """Return how many in-plane intervals of 60°/2^order make a turn."""
    return 6 * 2**order


def _least_rotation(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the rotations about start x end that take unit vectors ``start`` to ``end``, ``[n, 3, 3]``."""
    axis = np.cross(start, end)
    cosine = (start * end).sum(axis=1)
    cross = np.zeros((len(start), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    cross -= cross.transpose(0, 2, 1)
    return np.eye(3) + cross + cross @ cross / (1 + cosine)[:, None, None]


def root_shifts(range_px: float, step_px: float) -> np.ndarray:
    """Return the squares of side ``step_px`` that reach into a circle, int64 ``[s, 2]``: corner / side."""
    reach = max(1, int(np.ceil(range_px / step_px - 1e-9)))
    y, x = np.meshgrid(np.arange(-reach, reach), np.arange(-reach, reach), indexing="ij")
    nearest_x, nearest_y = (np.maximum(np.maximum(a, -a - 1), 0) for a in (x, y))
    inside = nearest_x**2 + nearest_y**2 < (range_px / step_px) ** 2
    return np.stack([x[inside], y[inside]], axis=1).astype(np.int64)


def child_shifts(squares: np.ndarray) -> np.ndarray:
    """Return the four quarters of each square, int64 ``[s, 4, 2]``, at half the side."""
    quarters = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    return 2 * np.asarray(squares)[:, None, :] + quarters


def shift_centres(squares: np.ndarray, step_px: float) -> np.ndarray:
    """Return the centres (x, y) of squares in pixels, float64 ``[s, 2]``."""
    return (np.asarray(squares) + 0.5) * float(step_px)
