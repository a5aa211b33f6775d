"""Points spread on a periodic grid: the first half of a Fourier transform of points at arbitrary places.

Each point is spread over `WIDTH` cells along each axis by exp(β (√(1 - z²) - 1)), z from -1 to 1 over the cells [1]_.
The caller divides the transform of the grid by that of this kernel.

References
----------
.. [1] A. H. Barnett, J. Magland, L. af Klinteberg, SIAM J. Sci. Comput. 41 (2019) C479, doi:10.1137/18M120885X.
"""

from __future__ import annotations

import numpy as np

from cryopipe.kernels._dispatch import check, check_on_cpu
from cryopipe.kernels.cpu.scattering import spreading as cpu
from cryopipe.kernels.cpu.scattering.spreading import BETA, OVERSAMPLING, WIDTH

__all__ = ["BETA", "OVERSAMPLING", "WIDTH", "spread_2d", "spread_3d"]


def spread_2d(grid: np.ndarray, xy: np.ndarray, weights: np.ndarray) -> None:
    """Add n points to ``grid`` float32 ``[size, size, c]`` (y, x, channel), which is periodic.

    ``xy`` float64 ``[n, 2]`` are places in cells, ``weights`` float32 ``[n, c]``.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, or an array of the GPU.
    """
    check_on_cpu(grid=grid, xy=xy, weights=weights)
    check("grid", grid, np.float32, (len(grid), len(grid), None))
    check("xy", xy, np.float64, (None, 2))
    check("weights", weights, np.float32, (len(xy), grid.shape[2]))
    cpu.spread_2d(grid, xy, weights)


def spread_3d(grid: np.ndarray, xyz: np.ndarray, weights: np.ndarray) -> None:
    """Add n points to ``grid`` float32 ``[size, size, size]`` (z, y, x), which is periodic.

    ``xyz`` float64 ``[n, 3]`` are places in cells, ``weights`` float32 ``[n]``.

    Raises
    ------
    TypeError, ValueError
        As :func:`spread_2d`.
    """
    check_on_cpu(grid=grid, xyz=xyz, weights=weights)
    check("grid", grid, np.float32, (len(grid),) * 3)
    check("xyz", xyz, np.float64, (None, 3))
    check("weights", weights, np.float32, (len(xyz),))
    cpu.spread_3d(grid, xyz, weights)
