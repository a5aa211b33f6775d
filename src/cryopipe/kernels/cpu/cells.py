"""The interpolation cell around a sample of a half cube."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit

#: NaN and infinity keep their meaning, sums their order
FASTMATH = {"contract", "nsz", "arcp"}
ONE = np.float32(1)


@njit(inline="always")
def locate(x, y, z, radius, side):
    """Return (flat index of the lower corner, fractions fx, fy, fz) of the cell around padded coordinates, x >= 0.

    Parameters
    ----------
    x, y, z : float32
        Coordinates in grid steps of the cube, relative to its centre.
    radius, side : int
        Radius R of the half cube, and 2 R + 1.
    """
    x0 = np.floor(x)
    y0 = np.floor(y)
    z0 = np.floor(z)
    row = (np.int64(z0) + radius) * side + np.int64(y0) + radius
    corner = np.uint64(row * (radius + 1) + np.int64(x0))
    return corner, x - x0, y - y0, z - z0
