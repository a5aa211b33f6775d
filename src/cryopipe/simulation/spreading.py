"""Fourier transforms of atoms at arbitrary places, by spreading them on a grid (non-uniform FFT of type 1).

Atoms are spread with the "exponential of semicircle" kernel over `WIDTH` cells of a grid that is `OVERSAMPLING` times
finer than needed. The grid is transformed and divided by the kernel's transform. The error is about 1e-5 of the sum of
the weights [1]_, whatever the pixel size. No map is interpolated.

References
----------
.. [1] A. H. Barnett, J. Magland, L. af Klinteberg, SIAM J. Sci. Comput. 41 (2019) C479, doi:10.1137/18M120885X.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

#: Width of the kernel in cells of the fine grid, and how much finer that grid is: the errors stated above.
WIDTH = 8
OVERSAMPLING = 1.25
#: Shape parameter of the kernel for this oversampling, with the safety factor 0.97 of [1].
BETA = 0.97 * np.pi * WIDTH * (1 - 0.5 / OVERSAMPLING)


def transform_2d(xy_px: NDArray[np.float64], weights: NDArray[np.float32], box: int) -> NDArray[np.complex64]:
    """Return ``sum_j w_j exp(-2 pi i k x_j / box)`` on the half plane of an image.

    Parameters
    ----------
    xy_px : float64 [n, 2]
        x, y in pixels; the origin is pixel (0, 0), places outside the box wrap around.
    weights : float32 [n, c]
        c sums are made at once.
    box : int
        Even length of the image.

    Returns
    -------
    complex64 [c, box, box // 2 + 1]
        As ``rfft2`` of an image of points.
    """
    size, factor, rows = _fine_grid(box)
    grid = np.zeros((size, size, weights.shape[1]), np.float32)
    _spread_2d(grid, np.ascontiguousarray(xy_px * (size / box)), np.ascontiguousarray(weights, dtype=np.float32))
    spectrum = scipy.fft.rfft2(np.ascontiguousarray(np.moveaxis(grid, -1, 0)))  # [c, y, x]
    half = box // 2 + 1
    return np.asarray(spectrum[:, rows, :half] * factor[:, None] * factor[:half], np.complex64)


def transform_3d(
    xyz_px: NDArray[np.float64], weights: NDArray[np.float32], box: int, *, threads: int = 1
) -> NDArray[np.complex64]:
    """Return the same sum on the half space of a volume.

    Parameters
    ----------
    xyz_px : float64 [n, 3]
        x, y, z in pixels; the origin is voxel (0, 0, 0), places outside the box wrap around.
    weights : float32 [n]
        One weight per atom.
    box : int
        Even length of the volume.
    threads : int
        Threads of the transform.

    Returns
    -------
    complex64 [box, box, box // 2 + 1]
        As ``rfftn`` of a volume of points.
    """
    size, factor, rows = _fine_grid(box)
    grid = np.zeros((size, size, size), np.float32)
    _spread_3d(grid, np.ascontiguousarray(xyz_px * (size / box)), np.ascontiguousarray(weights, dtype=np.float32))
    spectrum = scipy.fft.rfftn(grid, workers=threads)
    half = box // 2 + 1
    inner = spectrum[np.ix_(rows, rows, np.arange(half))]
    inner *= factor[:, None, None] * factor[:, None] * factor[:half]
    return np.asarray(inner, np.complex64)


@functools.lru_cache(maxsize=16)
def _fine_grid(box: int) -> tuple[int, NDArray[np.float32], NDArray[np.intp]]:
    """Return the length of the fine grid, one over the kernel's transform [box], and the rows to keep [box]."""
    size = 2 * scipy.fft.next_fast_len(int(np.ceil(max(OVERSAMPLING * box, box + 2 * WIDTH) / 2)), real=True)
    k = np.fft.fftfreq(box, 1 / box)
    # Gauss-Legendre over the kernel's half width; 64 nodes are exact to 1e-12 here
    nodes, node_weights = np.polynomial.legendre.leggauss(64)
    z = 0.5 * (nodes + 1)
    values = np.exp(BETA * (np.sqrt(1 - z**2) - 1)) * 0.5 * node_weights
    kernel = WIDTH * np.cos(np.pi * WIDTH * k[:, None] / size * z) @ values
    return size, (1 / kernel).astype(np.float32), (k.astype(np.intp)) % size


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _kernel(position: float, out: Any) -> int:
    """Fill the kernel's values at the `WIDTH` cells around ``position``; return the first of them."""
    first = int(np.ceil(position - WIDTH / 2))
    for i in range(WIDTH):
        z = (first + i - position) * (2.0 / WIDTH)
        out[i] = np.exp(BETA * (np.sqrt(max(1.0 - z * z, 0.0)) - 1.0))
    return first


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _spread_2d(grid: Any, xy: Any, weights: Any) -> None:
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


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _spread_3d(grid: Any, xyz: Any, weights: Any) -> None:
    size = grid.shape[0]
    along_x, along_y, along_z = np.empty(WIDTH, np.float32), np.empty(WIDTH, np.float32), np.empty(WIDTH, np.float32)
    for n in range(len(xyz)):
        x0, y0, z0 = _kernel(xyz[n, 0], along_x), _kernel(xyz[n, 1], along_y), _kernel(xyz[n, 2], along_z)
        for k in range(WIDTH):
            for j in range(WIDTH):
                value = weights[n] * along_z[k] * along_y[j]
                for i in range(WIDTH):
                    grid[(z0 + k) % size, (y0 + j) % size, (x0 + i) % size] += value * along_x[i]
