"""Grids of orientations: HEALPix directions times in-plane angles.

The HEALPix pixel centres in the ring scheme are from Górski et al. 2005, doi:10.1086/427976, eqs. 2-9. The in-plane step
equals the mean distance of the directions, 60°/2^order, as in RELION (where ``healpix_order`` is that before oversampling).
"""

from __future__ import annotations

import functools

import numpy as np
from scipy.spatial import cKDTree

from cryopipe.errors import InputError
from cryopipe.imaging.geometry import euler_to_matrix
from cryopipe.imaging.symmetry import in_asymmetric_unit, parse_group, symmetry_operators


def healpix_directions(order: int) -> np.ndarray:
    """Return the ``12 * 4**order`` HEALPix pixel centres in ring order: unit vectors (x, y, z), float64 ``[d, 3]``.

    Raises
    ------
    InputError
        ``order`` is outside 0..9. At order 9 neighbours are 0.12° apart. Finer poses come from `refine_poses`.
    """
    if not 0 <= order <= 9:
        raise InputError(
            f"HEALPix order {order} is not possible. Use 0 (60°) to 9 (0.12°), and refine continuously beyond that."
        )
    side = 2**order
    height, azimuth = [], []
    for ring in range(1, 4 * side):
        from_pole = min(ring, 4 * side - ring)
        if from_pole < side:  # polar cap: rings of 4 i pixels
            pixels = 4 * from_pole
            z = 1 - from_pole**2 / (3 * side**2)
            z = z if ring < side else -z
            first = 0.5
        else:  # equatorial belt: rings of 4 side pixels, every other one displaced by half a pixel
            pixels = 4 * side
            z = 4 / 3 - 2 * ring / (3 * side)
            first = 0.5 * ((ring - side + 1) % 2)
        height.append(np.full(pixels, z))
        azimuth.append((np.arange(pixels) + first) * 2 * np.pi / pixels)
    z, phi = np.concatenate(height), np.concatenate(azimuth)
    across = np.sqrt(1 - z * z)
    return np.stack([across * np.cos(phi), across * np.sin(phi), z], axis=1)  # [d, 3]


def angular_step_deg(order: int) -> float:
    """Return the step 60°/2^order of directions and in-plane angles."""
    return 60 / 2**order


def rim_step_A(order: int, diameter_A: float) -> float:
    """Return how far a step of a grid moves the rim of a particle: half its diameter times the step in radians."""
    return float(0.5 * diameter_A * np.radians(angular_step_deg(order)))


def order_for(resolution_A: float, diameter_A: float, *, share: float, finest: int) -> int:
    """Return the coarsest order, from 1, whose step moves a particle's rim by at most a share of the resolution.

    Parameters
    ----------
    resolution_A : float
        Finest detail that is compared.
    diameter_A : float
        Of the particle.
    share : float
        Of the resolution: at 1 a pose between two points of the grid turns the detail at the rim by half a period.
    finest : int
        The order at most.
    """
    fits = (order for order in range(1, finest) if rim_step_A(order, diameter_A) <= share * resolution_A)
    return next(fits, finest)


def orientation_grid(order: int, symmetry: str = "C1", *, rotation: np.ndarray | None = None) -> np.ndarray:
    """Return the rotation matrices of a HEALPix x psi grid inside the asymmetric unit of a point group.

    Parameters
    ----------
    order : int
        HEALPix order: step 60°/2^order, ``12 * 4**order`` directions in C1 and ``6 * 2**order`` in-plane angles.
    symmetry : str
        Point group (C1, C4, D2, T, O, I, ...). Of equivalent directions on the border of the unit one is kept. If the
        group does not map the HEALPix grid onto itself (3-, 5-, 7-fold axes), there would be gaps along the border.
        Directions just outside fill them, so that no pose is farther than `covering_radius_deg` from the grid. Use
        `orientation_weights` as weights.
    rotation : ndarray [3, 3], optional
        Displaces the whole grid: every pose A becomes ``rotation @ A``. This is an isometry of SO(3) that commutes with
        the symmetry, so coverage and spacing stay exact. With a random one in each iteration (`random_displacement`) the
        grid does not show in the map. Displaced poses may be slightly outside the unit.

    Returns
    -------
    ndarray float64 [o, 3, 3]
        Sorted by direction, then psi. Row 3 of each matrix is the viewing direction in map axes.
    """
    if order > 7:
        raise InputError(
            f"an orientation grid of order {order} is not possible. Use up to 7 (0.5°), and refine continuously beyond that."
        )
    directions, _ = _unit_directions(order, parse_group(symmetry))
    tilt = np.degrees(np.arccos(np.clip(directions[:, 2], -1, 1)))
    rot = np.degrees(np.arctan2(directions[:, 1], directions[:, 0]))
    psi = np.arange(6 * 2**order) * angular_step_deg(order)
    matrices = euler_to_matrix(np.repeat(rot, psi.size), np.repeat(tilt, psi.size), np.tile(psi, rot.size))
    if rotation is not None:
        matrices = np.asarray(rotation, np.float64) @ matrices
    return np.ascontiguousarray(matrices)


def orientation_weights(rotations: np.ndarray, symmetry: str) -> np.ndarray:
    """Return the share of a HEALPix pixel that each pose of an `orientation_grid` represents, float64 ``[o]``.

    This is the part of the asymmetric unit that is nearer to the direction of the pose than to any other direction of the
    grid and its equivalents. It is 1 inside, with other values along the border and on axes. Its logarithm is the prior over
    the grid.

    Raises
    ------
    InputError
        The poses are not a complete grid of this symmetry.
    """
    group = parse_group(symmetry)
    for order in range(8):
        in_plane = 6 * 2**order
        if len(rotations) % in_plane or len(rotations) > 12 * 4**order * in_plane:
            continue
        directions, weights = _unit_directions(order, group)
        if len(rotations) == len(directions) * in_plane:
            return np.repeat(weights, in_plane)
    raise InputError(
        f"{len(rotations)} poses are not a HEALPix grid of symmetry {symmetry}. Give all poses of orientation_grid."
    )


@functools.lru_cache(maxsize=32)
def _unit_directions(order: int, group: str) -> tuple[np.ndarray, np.ndarray]:
    """Return directions that cover the asymmetric unit of a group, and the share of a pixel that each represents there."""
    every = healpix_directions(order)
    if group == "C1":
        return every, np.ones(len(every))
    operators = symmetry_operators(group)
    kept = np.asarray(in_asymmetric_unit(every, group))
    _drop_equivalents(kept, every, operators)
    finer = healpix_directions(order + 3 if order < 4 else order + 2)
    inside = finer[np.asarray(in_asymmetric_unit(finer, group))]
    share = 1 / np.sum([in_asymmetric_unit(inside @ g, group) for g in operators], axis=0)
    nearest, pixel = cKDTree(every).query(inside)
    reach = nearest.max()
    while True:
        directions = every[kept]
        mates = np.concatenate([directions @ g for g in operators])
        distance, _ = cKDTree(mates).query(inside)
        gaps = distance > reach * (1 + 1e-9)
        if not gaps.any():
            break
        kept[pixel[np.flatnonzero(gaps)[distance[gaps].argmax()]]] = True
    # The area of a point is divided equally among all directions that are nearest to it.
    close, which = cKDTree(mates).query(inside, k=min(len(mates), 2 * len(operators)))
    tied = close.reshape(len(inside), -1) < distance[:, None] * (1 + 1e-9) + 1e-9
    part = tied / tied.sum(axis=1, keepdims=True) * share[:, None]
    weights = np.bincount(which.reshape(part.shape).ravel() % len(directions), part.ravel(), len(directions))
    weights *= len(every) / len(operators) / weights.sum()
    for array in (directions, weights):
        array.setflags(write=False)
    return directions, weights


def _drop_equivalents(kept: np.ndarray, directions: np.ndarray, operators: np.ndarray) -> None:
    """Of the directions on the border of the unit that the group maps onto each other, keep one, in place."""
    members = np.flatnonzero(kept)
    tree = cKDTree(directions[members])
    for g in operators[1:]:
        distance, mate = tree.query(directions[members] @ g, distance_upper_bound=1e-6)
        twice = np.isfinite(distance) & (mate < np.arange(len(members)))
        kept[members[twice]] = False


def covering_radius_deg(order: int) -> float:
    """Return the largest angle between any pose and the nearest pose of an `orientation_grid` or its symmetry mates.

    The poles are farthest from a pixel centre (the four pixels of the first ring are at z = 1 - 1/(3 nside²)). Half an
    in-plane step, about a perpendicular axis, is added.
    """
    tilt, turn = np.arccos(1 - 1 / (3 * 4.0**order)), np.radians(angular_step_deg(order)) / 2
    return float(np.degrees(2 * np.arccos(np.cos(tilt / 2) * np.cos(turn / 2))))


def random_displacement(rng: np.random.Generator, order: int) -> np.ndarray:
    """Return a random rotation by up to half a grid step about a random axis, float64 [3, 3]."""
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    angle = np.radians(angular_step_deg(order)) * 0.5 * np.cbrt(rng.uniform())
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def in_plane_grid(n_psi: int, *, offset_deg: float = 0.0) -> np.ndarray:
    """Return ``n_psi`` equally spaced in-plane rotations (rot = tilt = 0), float64 [n_psi, 3, 3]."""
    if n_psi < 1:
        raise InputError(f"an in-plane grid of {n_psi} angles is not possible. Give at least one.")
    zero = np.zeros(n_psi)
    return euler_to_matrix(zero, zero, offset_deg + np.arange(n_psi) * 360 / n_psi)
