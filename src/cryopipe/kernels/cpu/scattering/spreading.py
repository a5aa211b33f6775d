"""Atoms spread on a grid with the exponential of a semicircle, one after another: no sum depends on threads."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit

#: Width of the kernel in cells of the fine grid, and how much finer that grid is: an error of about 1e-5 (Barnett et al. 2019).
WIDTH = 8
OVERSAMPLING = 1.25
#: Shape parameter of the kernel for this oversampling, with the safety factor 0.97 of that paper.
BETA = 0.97 * np.pi * WIDTH * (1 - 0.5 / OVERSAMPLING)


@njit(cache=True, nogil=True)
def _kernel(position, out):
    """Fill the kernel's values at the `WIDTH` cells around ``position``; return the first of them."""
    first = int(np.ceil(position - WIDTH / 2))
    for i in range(WIDTH):
        z = (first + i - position) * (2.0 / WIDTH)
        out[i] = np.exp(BETA * (np.sqrt(max(1.0 - z * z, 0.0)) - 1.0))
    return first


@njit(cache=True, nogil=True)
def spread_2d(grid, xy, weights):
    """Add atoms to ``grid`` [y, x, c] at ``xy`` [n, 2] cells, with ``weights`` [n, c]."""
    size, channels = grid.shape[0], grid.shape[2]
    along_x, along_y = np.empty(WIDTH, np.float32), np.empty(WIDTH, np.float32)
    for n in range(len(xy)):
        x0, y0 = _kernel(xy[n, 0], along_x), _kernel(xy[n, 1], along_y)
        for j in range(WIDTH):
            row = (y0 + j) % size
            for i in range(WIDTH):
                value = along_y[j] * along_x[i]
                column = (x0 + i) % size
                for c in range(channels):
                    grid[row, column, c] += value * weights[n, c]


@njit(cache=True, nogil=True)
def spread_3d(grid, xyz, weights):
    """Add atoms to ``grid`` [z, y, x] at ``xyz`` [n, 3] cells, with ``weights`` [n]."""
    size = grid.shape[0]
    along_x, along_y, along_z = np.empty(WIDTH, np.float32), np.empty(WIDTH, np.float32), np.empty(WIDTH, np.float32)
    for n in range(len(xyz)):
        x0, y0, z0 = _kernel(xyz[n, 0], along_x), _kernel(xyz[n, 1], along_y), _kernel(xyz[n, 2], along_z)
        for k in range(WIDTH):
            for j in range(WIDTH):
                value = weights[n] * along_z[k] * along_y[j]
                for i in range(WIDTH):
                    grid[(z0 + k) % size, (y0 + j) % size, (x0 + i) % size] += value * along_x[i]
