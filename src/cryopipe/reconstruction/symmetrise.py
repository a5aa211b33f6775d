"""Imposing a point group on the accumulators of a reconstruction.

Operators that permute and flip axes map voxels of a half cube exactly onto voxels: all 24 of O, and C2, C4, D2, D4 on the
axes. A sum over the orbit of each voxel, in place, imposes them without interpolation, extra memory or further slices. For a
group G with such a subgroup H there remain |G|/|H| cosets. Either images are rotated: every slice is inserted |G|/|H| times,
which is exact. Or volumes are rotated, once for the whole cube as in RELION, which applies a second trilinear kernel to that
share of the data. A model of the time decides which is faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cryopipe.imaging.backend import array_module
from cryopipe.imaging.symmetry import coset_representatives, is_signed_permutation, symmetry_operators
from cryopipe.kernels.orbits import add_rotated, sum_over_orbits

Method = Literal["copies", "interpolation"]
INSERTED_S = 32e-9
"""Seconds to insert a sample on one core (box 250, padding 2; measured with `benchmarks/engines/reconstruct.py`)."""
ROTATED_S = 20e-9
"""Seconds to rotate a voxel on one core."""


@dataclass(frozen=True)
class SymmetryPlan:
    """How a point group is imposed.

    Attributes
    ----------
    group : str
    exact : ndarray [h, 3, 3]
        The operators that act on voxels exactly.
    cosets : ndarray [m, 3, 3]
        Operators c, the identity first, such that the poses ``A @ c @ h`` are all the equivalents of A.
    method : {"copies", "interpolation"}
        How the cosets are imposed. It has no meaning if m = 1.
    copy_seconds, interpolation_seconds : float
        Expected time of each method on one core. The plan has the faster method, or the requested one.
    """

    group: str
    exact: np.ndarray
    cosets: np.ndarray
    method: Method
    copy_seconds: float
    interpolation_seconds: float

    @property
    def order(self) -> int:
        """Number of operators of the group."""
        return len(self.exact) * len(self.cosets)

    @property
    def rotates_volumes(self) -> bool:
        """Whether `symmetrise_half_cubes` interpolates, which needs a second pair of cubes."""
        return self.method == "interpolation" and len(self.cosets) > 1


def symmetry_plan(
    group: str, *, n_slices: int, n_pixels: int, cube_shape: tuple[int, int, int], method: Method | None = None
) -> SymmetryPlan:
    """Choose how to impose ``group`` on ``n_slices`` slices of ``n_pixels`` pixels in a half cube.

    Copies cost `INSERTED_S` per sample. Rotation costs `ROTATED_S` per voxel of the half sphere and operator. ``method``
    overrides the choice.

    Parameters
    ----------
    group : str
        Point group.
    n_slices : int
        Approximate number of slices that will be inserted.
    n_pixels : int
        Number of Fourier pixels of a slice.
    cube_shape : tuple of int
        Shape of the half cube.
    method : {"copies", "interpolation"}, optional
        Overrides the choice.
    """
    operators = symmetry_operators(group)
    exact = operators[is_signed_permutation(operators)]
    # coset_representatives gives G = H r. The inverse of that is G = r⁻¹ H, the side on which poses are multiplied.
    cosets = coset_representatives(operators, exact).transpose(0, 2, 1)
    further = len(cosets) - 1
    copies = INSERTED_S * n_slices * n_pixels * further
    interpolation = ROTATED_S * 2 * np.pi / 3 * (cube_shape[2] - 1) ** 3 * further
    chosen: Method = method or ("copies" if copies <= interpolation else "interpolation")
    return SymmetryPlan(group, exact, np.ascontiguousarray(cosets), chosen, copies, float(interpolation))


def symmetrise_half_cubes(
    numerator: Any, weight: Any, plan: SymmetryPlan, *, reach: float | None = None
) -> tuple[Any, Any]:
    """Impose the plan on the accumulators and return them. Both become sums over the group.

    They are changed in place if nothing is interpolated. Beyond ``reach`` (in steps of the cube) all voxels are zero.

    Parameters
    ----------
    numerator, weight : complex64, float32 [2R+1, 2R+1, R+1]
        Accumulators.
    plan : SymmetryPlan
        How the group is imposed.
    reach : float
        Radius of a sphere with all inserted voxels, in steps of the cubes.
    """
    xp = array_module(numerator, weight)
    if plan.rotates_volumes:
        total, total_weight = numerator.copy(), weight.copy()
        # A slice of pose A @ c adds at cᵀ q what the slice of A adds at q, so the value of the copy at k is that of the
        # original at c k.
        operators = xp.asarray(plan.cosets[1:].astype(np.float32))
        add_rotated(numerator, weight, operators, total, total_weight, reach=reach)
        numerator, weight = total, total_weight
    if len(plan.exact) > 1:
        sum_over_orbits(numerator, weight, np.rint(plan.exact).astype(np.int64), reach=reach)
    return numerator, weight
