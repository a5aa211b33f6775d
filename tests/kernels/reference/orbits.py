"""Symmetry of half cubes by its definition on the *full* cube, in float64."""

from __future__ import annotations

import itertools

from tests.kernels.reference.slices import full_cube, neighbours


def sum_over_orbits(numerator, weight, operators, *, reach=None):
    radius = numerator.shape[2] - 1
    for array in (numerator, weight):
        full = full_cube(array)
        for z, y in itertools.product(range(-radius, radius + 1), repeat=2):
            for x in range(radius + 1):
                if reach is not None and x * x + y * y + z * z > reach * reach:
                    continue
                total = sum(full[tuple(radius + (g @ (x, y, z))[::-1])] for g in operators)
                array[z + radius, y + radius, x] = total if array is numerator else total.real


def add_rotated(numerator, weight, operators, total, total_weight, *, reach=None):
    radius = numerator.shape[2] - 1
    limit = min(radius - 1, radius if reach is None else reach)
    for array, out in ((numerator, total), (weight, total_weight)):
        full = full_cube(array)
        for z, y in itertools.product(range(-radius, radius + 1), repeat=2):
            for x in range(radius + 1):
                if x * x + y * y + z * z >= limit * limit:
                    continue
                for c in operators.astype(float):
                    for (i, j, k), share in neighbours(c @ (x, y, z)):
                        value = share * full[k + radius, j + radius, i + radius]
                        out[z + radius, y + radius, x] += value if array is numerator else value.real
