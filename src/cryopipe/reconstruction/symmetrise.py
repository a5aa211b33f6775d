"""Imposing a point group on the accumulators of a reconstruction.

Operators that permute and flip axes act on a half cube's voxels exactly: all 24 of O, and C2, C4, D2, D4 on the axes.
Summing over each voxel's orbit in place imposes them without interpolation, extra memory or a single further slice. For
a group G with such a subgroup H the rest is |G|/|H| cosets: they are inserted (every slice |G|/|H| times: exact) or
interpolated (once over the cube: RELION's way, a second trilinear kernel on that share of the data), whichever takes
fewer operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numba
import numpy as np

from cryopipe.imaging.backend import array_module
from cryopipe.imaging.symmetry import coset_representatives, is_signed_permutation, symmetry_operators

Method = Literal["copies", "interpolation"]


@dataclass(frozen=True)
class SymmetryPlan:
    """How a group is imposed.

    Attributes
    ----------
    group : str
    exact : ndarray [h, 3, 3]
        The operators that act on voxels exactly.
    cosets : ndarray [m, 3, 3]
        Operators c, the identity first, such that the poses ``A @ c @ h`` are all the equivalents of A.
    method : {"copies", "interpolation"}
        What is done about the cosets; without meaning where m = 1.
    copy_operations, interpolation_operations : float
        Multiply-adds that either takes; the plan holds the smaller, or what was asked for.
    """

    group: str
    exact: np.ndarray
    cosets: np.ndarray
    method: Method
    copy_operations: float
    interpolation_operations: float


def symmetry_plan(
    group: str, *, n_slices: int, n_pixels: int, cube_shape: tuple[int, int, int], method: Method | None = None
) -> SymmetryPlan:
    """Choose how to impose ``group`` on ``n_slices`` slices of ``n_pixels`` pixels in a half cube.

    A sample is scattered to 8 voxels in 3 numbers (complex numerator, weight): 24 operations a copy; an interpolated
    voxel gathers the same 24. ``method`` overrides the choice.
    """
    operators = symmetry_operators(group)
    exact = operators[is_signed_permutation(operators)]
    # coset_representatives gives G = H r; the inverse of that is G = r⁻¹ H, the side on which poses multiply.
    cosets = coset_representatives(operators, exact).transpose(0, 2, 1)
    further = len(cosets) - 1
    copies = 24.0 * n_slices * n_pixels * further
    interpolation = 24.0 * float(np.prod(cube_shape)) * further
    chosen: Method = method or ("copies" if copies <= interpolation else "interpolation")
    return SymmetryPlan(group, exact, np.ascontiguousarray(cosets), chosen, copies, interpolation)


def symmetrise_half_cubes(numerator: Any, weight: Any, plan: SymmetryPlan) -> tuple[Any, Any]:
    """Impose the plan on the accumulators and return them.

    Both become sums over the group. NumPy cubes are changed in place where no interpolation is needed.
    """
    if plan.method == "interpolation" and len(plan.cosets) > 1:
        numerator, weight = _add_interpolated(numerator, weight, plan.cosets)
    if len(plan.exact) > 1:
        if array_module(numerator, weight) is np:
            sum_over_orbits(numerator, weight, np.rint(plan.exact).astype(np.int64))
        else:
            numerator, weight = sum_of_copies(numerator, weight, plan.exact)
    return numerator, weight


def sum_over_orbits(numerator: np.ndarray, weight: np.ndarray, operators: np.ndarray) -> None:
    """Replace every voxel by the sum over its orbit under signed permutations, **in place**.

    Parameters
    ----------
    numerator : complex64 [2R+1, 2R+1, R+1]
    weight : float32 [2R+1, 2R+1, R+1]
    operators : int64 [h, 3, 3]
        A group of signed permutation matrices acting on (x, y, z).
    """
    # Each orbit is worked on once, by its member of smallest index: no two threads ever touch the same voxel.
    axis = np.abs(operators).argmax(axis=2).astype(np.int64)  # (g k)[i] = sign[i] k[axis[i]]
    sign = np.take_along_axis(operators, axis[:, :, None], axis=2)[:, :, 0].astype(np.int64)
    _sum_over_orbits(numerator, weight, axis, sign)


@numba.njit(cache=True, parallel=True)
def _sum_over_orbits(numerator, weight, axis, sign):  # type: ignore[no-untyped-def]
    radius = numerator.shape[2] - 1
    width = 2 * radius + 1
    n = axis.shape[0]
    for plane in numba.prange(width):
        k = np.empty(3, np.int64)
        where = np.empty((2 * n, 3), np.int64)
        for row in range(width):
            for column in range(radius + 1):
                k[0], k[1], k[2] = column, row - radius, plane - radius
                own = (plane * width + row) * (radius + 1) + column
                first = True
                for g in range(n):
                    x = sign[g, 0] * k[axis[g, 0]]
                    y = sign[g, 1] * k[axis[g, 1]]
                    z = sign[g, 2] * k[axis[g, 2]]
                    # Of the image and its Friedel mate, those with kx >= 0 are stored; one at kx = 0 has both stored.
                    if x >= 0 and ((z + radius) * width + y + radius) * (radius + 1) + x < own:
                        first = False
                        break
                    if x <= 0 and ((radius - z) * width + radius - y) * (radius + 1) - x < own:
                        first = False
                        break
                    where[g, 0], where[g, 1], where[g, 2] = x, y, z
                if not first:
                    continue
                total = 0.0j
                total_weight = 0.0
                for g in range(n):
                    x, y, z = where[g]
                    if x >= 0:
                        total += numerator[z + radius, y + radius, x]
                        total_weight += weight[z + radius, y + radius, x]
                    else:
                        total += np.conj(numerator[radius - z, radius - y, -x])
                        total_weight += weight[radius - z, radius - y, -x]
                for g in range(n):
                    x, y, z = where[g]
                    if x >= 0:
                        numerator[z + radius, y + radius, x] = total
                        weight[z + radius, y + radius, x] = total_weight
                    if x <= 0:
                        numerator[radius - z, radius - y, -x] = np.conj(total)
                        weight[radius - z, radius - y, -x] = total_weight


def sum_of_copies(numerator: Any, weight: Any, operators: np.ndarray) -> tuple[Any, Any]:
    """Return the same sums from axis-permuted copies of the whole cubes: array expressions alone, for the GPU."""
    full, full_weight = _whole(numerator), _whole(weight)
    radius = numerator.shape[2] - 1
    total, total_weight = full * 0, full_weight * 0
    for operator in np.rint(operators).astype(int):
        order = operator[::-1, ::-1]  # array axes are z, y, x
        axes = np.abs(order).argmax(axis=1)
        flips = tuple(slice(None, None, int(order[i, axes[i]])) for i in range(3))
        total += full.transpose(*axes)[flips]
        total_weight += full_weight.transpose(*axes)[flips]
    xp = array_module(numerator)
    return xp.ascontiguousarray(total[:, :, radius:]), xp.ascontiguousarray(total_weight[:, :, radius:])


def _whole(half: Any) -> Any:
    xp = array_module(half)
    mates = xp.conj(half[::-1, ::-1, :0:-1])
    return xp.concatenate([mates, half], axis=2)


def _add_interpolated(numerator: Any, weight: Any, cosets: np.ndarray) -> tuple[Any, Any]:
    if array_module(numerator, weight) is not np:
        raise TypeError("accumulators are interpolated on the CPU only: on a GPU plan with method='copies'")
    total, total_weight = numerator.copy(), weight.copy()
    for operator in cosets[1:]:
        # A slice of pose A @ c puts at cᵀ q what the slice of A puts at q: the copy's value at k is the original's at c
        # k.
        _interpolate(numerator, weight, operator.astype(np.float32), total, total_weight)
    return total, total_weight


@numba.njit(cache=True, parallel=True)
def _interpolate(numerator, weight, operator, total, total_weight):  # type: ignore[no-untyped-def]
    radius = numerator.shape[2] - 1
    for plane in numba.prange(2 * radius + 1):
        kz = np.float32(plane - radius)
        for row in range(2 * radius + 1):
            ky = np.float32(row - radius)
            for column in range(radius + 1):
                kx = np.float32(column)
                if kx * kx + ky * ky + kz * kz >= (radius - 1) ** 2:
                    continue
                x = operator[0, 0] * kx + operator[0, 1] * ky + operator[0, 2] * kz
                y = operator[1, 0] * kx + operator[1, 1] * ky + operator[1, 2] * kz
                z = operator[2, 0] * kx + operator[2, 1] * ky + operator[2, 2] * kz
                mate = x < 0
                if mate:
                    x, y, z = -x, -y, -z
                ix, iy, iz = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
                fx, fy, fz = x - ix, y - iy, z - iz
                value = np.complex64(0)
                mass = np.float32(0)
                for dz in range(2):
                    for dy in range(2):
                        for dx in range(2):
                            share = (fx if dx else 1 - fx) * (fy if dy else 1 - fy) * (fz if dz else 1 - fz)
                            value += share * numerator[iz + dz + radius, iy + dy + radius, ix + dx]
                            mass += share * weight[iz + dz + radius, iy + dy + radius, ix + dx]
                total[plane, row, column] += np.conj(value) if mate else value
                total_weight[plane, row, column] += mass
