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

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryopipe.kernels.scattering.spreading import BETA, OVERSAMPLING, WIDTH, spread_2d, spread_3d


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
    spread_2d(grid, np.ascontiguousarray(xy_px * (size / box)), np.ascontiguousarray(weights, dtype=np.float32))
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
    spread_3d(grid, np.ascontiguousarray(xyz_px * (size / box)), np.ascontiguousarray(weights, dtype=np.float32))
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
