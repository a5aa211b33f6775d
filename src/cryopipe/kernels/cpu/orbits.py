"""Sums over orbits of voxels and rotated copies of half cubes, on the CPU."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from cryopipe.kernels.cpu.cells import FASTMATH, ONE, locate
from cryopipe.kernels.cpu.threads import in_parts
from cryopipe.kernels.cpu.vectors import prefetch, prefetch_to_write

#: edge of the blocks of voxels that are worked on together: their 24 images fill whole cache lines and stay in the
#: second-level cache between reading and writing
EDGE = 8
#: columns ahead of the one being rotated whose cells are asked for
AHEAD = 12


@njit(inline="always")
def _all_orbits(numerator, weight, origin, at, on_plane, conjugate, order, sums):
    """Sum, then write, the 24 voxels at ``at``, ``order`` of them an orbit; mates where ``on_plane``.

    All is read before anything is written: where a = b or c = 0, orbits coincide.
    """
    for orbit in range(24 // order):
        real = imag = mass = 0.0
        for e in range(orbit * order, (orbit + 1) * order):
            real += numerator[2 * at[e]]
            imag += conjugate[e] * numerator[2 * at[e] + 1]
            mass += weight[at[e]]
        sums[orbit, 0], sums[orbit, 1], sums[orbit, 2] = real, imag, mass
    for e in range(24):
        real, imag, mass = sums[e // order]
        imag *= conjugate[e]
        numerator[2 * at[e]] = real
        numerator[2 * at[e] + 1] = imag
        weight[at[e]] = mass
        if on_plane[e]:
            mate = 2 * origin - at[e]
            numerator[2 * mate] = real
            numerator[2 * mate + 1] = -imag
            weight[mate] = mass


@njit(parallel=True, cache=True, nogil=True)
def sum_over_orbits(numerator, weight, radius, steps, first_axis, conjugate, order, limit):
    """Work through a >= b >= c >= 0 with a² + b² + c² <= limit; see `cryopipe.kernels.orbits.orbit_table`.

    Parameters
    ----------
    numerator, weight : array
        Half cube of radius ``radius``, changed in place.
    radius : int
        R: the cube has [2R+1, 2R+1, R+1] voxels.
    steps, first_axis, conjugate : array [24, 3], [24], [24]
        Table of the orbits: see :func:`cryopipe.kernels.orbits.orbit_table`.
    order : int
        Order of the group: the 24 images fall into 24 / order orbits.
    limit : int
        Largest squared distance from the origin.
    """
    origin = (radius * (2 * radius + 1) + radius) * (radius + 1)
    blocks = radius // EDGE + 1
    for task in prange(blocks * blocks):
        # the long tasks, those of large a, first and last in turn: halves of the range hold equal work
        outer = task // blocks
        outer = outer // 2 if outer % 2 == 0 else blocks - 1 - outer // 2
        middle = task % blocks
        if middle > outer:
            continue
        at = np.empty(24, np.int64)
        on_plane = np.empty(24, np.bool_)
        sums = np.empty((24, 3))
        for inner in range(middle + 1):
            for a in range(EDGE * outer, min(EDGE * (outer + 1), radius + 1)):
                for b in range(EDGE * middle, min(EDGE * (middle + 1), a + 1)):
                    for e in range(24):
                        at[e] = origin + a * steps[e, 0] + b * steps[e, 1] + (EDGE * inner - 1) * steps[e, 2]
                    for c in range(EDGE * inner, min(EDGE * (inner + 1), b + 1)):
                        if a * a + b * b + c * c > limit:
                            break
                        for e in range(24):
                            at[e] += steps[e, 2]
                            prefetch_to_write(numerator, np.uint64(2 * (at[e] + steps[e, 1])))
                            prefetch_to_write(weight, np.uint64(at[e] + steps[e, 1]))
                            on_plane[e] = False
                        if c == 0:
                            for e in range(24):
                                axis = first_axis[e]
                                on_plane[e] = axis == 2 or (axis == 1 and b == 0) or (axis == 0 and a == 0)
                        _all_orbits(numerator, weight, origin, at, on_plane, conjugate, order, sums)


@njit(inline="always")
def _value(numerator, weight, at, side, stride, fx, fy, fz):
    """Return the trilinear (real, imaginary, weight) of the cell whose lower corner is ``at``."""
    real = imag = mass = np.float32(0)
    for corner in range(4):
        low = at + np.uint64((corner & 1) * stride + (corner >> 1) * side * stride)
        share = (fy if corner & 1 else ONE - fy) * (fz if corner >> 1 else ONE - fz)
        near, far = share * (ONE - fx), share * fx
        first = np.uint64(2) * low
        real += near * numerator[first] + far * numerator[first + np.uint64(2)]
        imag += near * numerator[first + np.uint64(1)] + far * numerator[first + np.uint64(3)]
        mass += near * weight[low] + far * weight[low + np.uint64(1)]
    return real, imag, mass


@njit(inline="always")
def _ask_for(numerator, weight, at, side, stride):
    for corner in range(4):
        low = at + np.uint64((corner & 1) * stride + (corner >> 1) * side * stride)
        prefetch(numerator, np.uint64(2) * low)
        prefetch(numerator, np.uint64(2) * low + np.uint64(3))
        prefetch(weight, low)
        prefetch(weight, low + np.uint64(1))


def add_rotated(*arguments: Any) -> None:
    """Add the rotated copies, a plane a task; the arguments are those of ``_add_rotated``."""
    in_parts(_add_rotated, 2 * arguments[2] + 1, *arguments)


@njit(fastmath=FASTMATH, cache=True, nogil=True)
def _add_rotated(first_plane, last_plane, numerator, weight, radius, operators, limit, total, total_weight):
    """Gather: every voxel within ``limit`` adds its values in the order of the operators.

    An operator works through a plane before the next one does: rows side by side then find their cells in the cache.
    """
    side = 2 * radius + 1
    stride = radius + 1
    for plane in range(first_plane, last_plane):
        kz = np.float32(plane - radius)
        for m in range(operators.shape[0]):
            for row in range(side):
                ky = np.float32(row - radius)
                x0 = operators[m, 0, 1] * ky + operators[m, 0, 2] * kz
                y0 = operators[m, 1, 1] * ky + operators[m, 1, 2] * kz
                z0 = operators[m, 2, 1] * ky + operators[m, 2, 2] * kz
                inside = limit * limit - ky * ky - kz * kz
                if inside <= 0:
                    continue
                for column in range(min(stride, np.int64(np.ceil(np.sqrt(inside))))):
                    kx = np.float32(column + AHEAD)
                    if (column + AHEAD) ** 2 < inside:
                        x = operators[m, 0, 0] * kx + x0
                        y = operators[m, 1, 0] * kx + y0
                        z = operators[m, 2, 0] * kx + z0
                        if x < 0:
                            x, y, z = -x, -y, -z
                        corner, _, _, _ = locate(x, y, z, radius, side)
                        _ask_for(numerator, weight, corner, side, stride)
                    kx = np.float32(column)
                    x = operators[m, 0, 0] * kx + x0
                    y = operators[m, 1, 0] * kx + y0
                    z = operators[m, 2, 0] * kx + z0
                    sign = ONE
                    if x < 0:
                        x, y, z, sign = -x, -y, -z, -ONE
                    corner, fx, fy, fz = locate(x, y, z, radius, side)
                    real, imag, mass = _value(numerator, weight, corner, side, stride, fx, fy, fz)
                    at = (plane * side + row) * stride + column
                    total[2 * at] += real
                    total[2 * at + 1] += sign * imag
                    total_weight[at] += mass
