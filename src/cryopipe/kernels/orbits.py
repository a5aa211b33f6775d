"""Point groups on the accumulators of a reconstruction: sums over the orbits of voxels, and rotated copies.

Both work on the numerator and weight of `cryopipe.kernels.slices.insert_slices`, centred half cubes of radius R.
"""

from __future__ import annotations

import itertools

import numpy as np

from cryopipe.kernels._dispatch import Array, backend_of, check_rotations
from cryopipe.kernels.slices import check_cube


def sum_over_orbits(numerator: Array, weight: Array, operators: np.ndarray, *, reach: float | None = None) -> None:
    """Replace every voxel by the sum over its orbit under signed axis permutations, **in place**, without interpolation.

    Each orbit of the 48 signed permutations contains whole orbits of the group. It is read once, summed in float64 and
    written once. No two threads use the same voxel, so that the result does not depend on their number.

    Parameters
    ----------
    numerator : complex64 [2R+1, 2R+1, R+1]
        Hermitian on its plane kx = 0, as insertion leaves it.
    weight : float32 [2R+1, 2R+1, R+1]
    operators : int [h, 3, 3], NumPy
        A group of signed permutation matrices of determinant 1, acting on (x, y, z): all 24 of O or a subgroup.
    reach : float, optional
        Voxels farther from the origin are zero and are not changed. All voxels by default.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, a mix of NumPy and CuPy, or operators that are not such a group.
    """
    backend = backend_of(numerator=numerator, weight=weight)
    radius = _check_pair(numerator, weight)
    steps, first_axis, conjugate = orbit_table(operators, radius)
    limit = np.int64(4 * (radius + 1) ** 2 if reach is None else int(reach * reach))
    if backend == "cuda":
        from cryopipe.kernels.cuda import orbits as cuda

        cuda.sum_over_orbits(numerator, weight, radius, steps, first_axis, conjugate, len(operators), limit)
        return
    from cryopipe.kernels.cpu import orbits as cpu

    cpu.sum_over_orbits(
        numerator.reshape(-1).view(np.float32), weight.reshape(-1), radius, steps, first_axis, conjugate,
        np.int64(len(operators)), limit,
    )  # fmt: skip


def add_rotated(
    numerator: Array, weight: Array, operators: Array, total: Array, total_weight: Array, *, reach: float | None = None
) -> None:
    """Add rotated copies of a half cube to ``total``, **in place**. The copy at k is the trilinear value at c k.

    Parameters
    ----------
    numerator, weight : complex64 and float32 [2R+1, 2R+1, R+1]
        The cube that is rotated. It is not changed.
    operators : float [m, 3, 3]
        Rotations c acting on (x, y, z).
    total, total_weight : complex64 and float32 [2R+1, 2R+1, R+1]
        Receive the sum over c, except voxels at R - 1 and beyond, whose cells reach outside the cube.
    reach : float, optional
        Voxels farther from the origin are not changed.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, matrices that are not rotations, a mix of NumPy and CuPy, or ``total`` is ``numerator``.
    """
    backend = backend_of(
        numerator=numerator, weight=weight, operators=operators, total=total, total_weight=total_weight
    )
    radius = _check_pair(numerator, weight)
    if _check_pair(total, total_weight) != radius:
        raise ValueError(f"total has shape {tuple(total.shape)} but numerator {tuple(numerator.shape)}.")
    if total is numerator or total_weight is weight:
        raise ValueError("total must not be the rotated cube, because voxels would be read after they were changed.")
    check_rotations("operators", operators)
    if operators.ndim != 3:
        raise ValueError(f"operators must have shape (m, 3, 3), not {tuple(operators.shape)}.")
    operators = operators.astype(np.float32)
    limit = np.float32(min(radius - 1, radius if reach is None else reach))
    if backend == "cuda":
        from cryopipe.kernels.cuda import orbits as cuda

        cuda.add_rotated(numerator, weight, radius, operators, limit, total, total_weight)
        return
    from cryopipe.kernels.cpu import orbits as cpu

    cpu.add_rotated(
        numerator.reshape(-1).view(np.float32), weight.reshape(-1), radius, operators, limit,
        total.reshape(-1).view(np.float32), total_weight.reshape(-1),
    )  # fmt: skip


def orbit_table(operators: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the images of a voxel (a, b, c), a >= b >= c >= 0, by the 24 rotations of a cube, sorted by orbits.

    Returns
    -------
    steps : int64 [24, 3]
        The image of (a, b, c), or its Friedel mate, is ``a steps[0] + b steps[1] + c steps[2]`` after the origin in the
        flat half cube.
    first_axis : int64 [24]
        Which of a, b, c became its kx.
    conjugate : float32 [24]
        -1 if the mate is stored.
    """
    group = np.asarray(operators)
    if group.ndim != 3 or group.shape[1:] != (3, 3) or not np.array_equal(group, np.rint(group)):
        raise ValueError(f"operators must be integer matrices [h, 3, 3], not {group.dtype.name} {group.shape}.")
    cube = _cube_rotations()
    members = {m.tobytes() for m in cube}
    rows = [np.ascontiguousarray(m, np.int64) for m in group]
    own = {m.tobytes() for m in rows}
    closed = all(np.ascontiguousarray(a @ b).tobytes() in own for a in rows for b in rows)
    if not own <= members or len(own) != len(rows) or not closed:
        raise ValueError("operators must be a group of signed permutations of determinant 1, without repeats.")
    ordered: list[np.ndarray] = []
    seen: set[bytes] = set()
    for rotation in cube:
        if rotation.tobytes() not in seen:
            orbit = [np.ascontiguousarray(h @ rotation) for h in rows]
            seen.update(m.tobytes() for m in orbit)
            ordered.extend(orbit)
    side, width = 2 * radius + 1, radius + 1
    all_of = np.stack(ordered)  # row i: component i of the image as a signed choice from (a, b, c)
    first_axis = np.abs(all_of[:, 0]).argmax(axis=1)
    sign = np.take_along_axis(all_of[:, 0], first_axis[:, None], axis=1)[:, 0]
    steps = np.einsum("i,eij->ej", np.array([1, width, side * width]), all_of) * sign[:, None]
    return steps.astype(np.int64), first_axis.astype(np.int64), sign.astype(np.float32)


def _cube_rotations() -> list[np.ndarray]:
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            matrix = np.zeros((3, 3), np.int64)
            matrix[range(3), order] = signs
            if round(float(np.linalg.det(matrix))) == 1:
                found.append(matrix)
    return found


def _check_pair(numerator: Array, weight: Array) -> int:
    radius = check_cube(numerator, "numerator", np.complex64)
    if check_cube(weight, "weight", np.float32) != radius:
        raise ValueError(f"weight has shape {tuple(weight.shape)} but numerator {tuple(numerator.shape)}.")
    return radius
