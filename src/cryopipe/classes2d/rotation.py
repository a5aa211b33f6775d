"""In-plane rotations of class averages: reference slices at many angles, and the adjoint that adds up posed images.

An average is represented on a twofold padded Fourier grid ``[2R+1, 2R+1]`` (both halves, centre at ``[R, R]``). Bilinear
interpolation at ``2 Aᵀ k`` is a sparse matrix that is the same for all classes. Its transpose is the exact adjoint.
Interpolation multiplies the image by a separable sinc², so images are divided by it before and after.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.sparse

from cryopipe.imaging.fourier_pixels import FourierPixels
from cryopipe.search.grid import in_plane_grid

#: Padding factor of the Fourier grid, RELION's default (--pad 2). With a larger one interpolation is more exact, but memory
#: grows with its square.
PADDING = 2


@dataclass(frozen=True, eq=False)
class Rotator:
    """References at ``n_psi`` angles on the pixels of a search.

    Attributes
    ----------
    pixels : FourierPixels
    rotations : float64 ``[n_psi, 3, 3]``
        In-plane pose matrices: an image with the pose A shows the average at ``Aᵀ k``.
    radius : int
        R of the padded grid.
    matrix : sparse float32 ``[n_psi K, (2R+1)²]``
    """

    pixels: FourierPixels
    rotations: np.ndarray
    radius: int
    matrix: scipy.sparse.csr_array

    def references(self, grids: np.ndarray) -> np.ndarray:
        """Return slices ``[classes n_psi, K]`` complex64, angle fastest, from Fourier grids ``[classes, 2R+1, 2R+1]``."""
        classes = len(grids)
        values = self.matrix @ np.ascontiguousarray(grids.reshape(classes, -1).T)  # [n_psi K, classes]
        return np.ascontiguousarray(values.T, dtype=np.complex64).reshape(-1, len(self.pixels))

    def add_up(self, sums: np.ndarray, classes: int) -> np.ndarray:
        """Return ``[classes, 2R+1, 2R+1]``: the adjoint of ``sums`` ``[classes n_psi, K]``, with Friedel mates."""
        values = self.matrix.T @ np.ascontiguousarray(sums.reshape(classes, -1).T)
        edge = 2 * self.radius + 1
        grids = np.ascontiguousarray(values.T).reshape(classes, edge, edge)
        return grids + np.conj(grids[:, ::-1, ::-1])


def make_rotator(pixels: FourierPixels, n_psi: int, *, offset_deg: float = 0.0) -> Rotator:
    """Build the interpolation matrix for ``n_psi`` equally spaced angles (4 entries per pixel and angle)."""
    rotations = in_plane_grid(n_psi, offset_deg=offset_deg)
    radius = int(np.ceil(PADDING * (pixels.radius + 0.5))) + 1
    k = np.stack([pixels.kx, pixels.ky], axis=1).astype(np.float64)  # [K, 2]
    place = PADDING * np.einsum("pji,kj->pki", rotations[:, :2, :2], k).reshape(-1, 2) + radius  # Aᵀ k
    corner = np.floor(place).astype(np.int64)
    part = place - corner
    edge = 2 * radius + 1
    columns, weights = [], []
    for dy in (0, 1):
        for dx in (0, 1):
            columns.append((corner[:, 1] + dy) * edge + corner[:, 0] + dx)
            weights.append(np.abs(1 - dx - part[:, 0]) * np.abs(1 - dy - part[:, 1]))
    column = np.stack(columns, axis=1).ravel()
    weight = np.stack(weights, axis=1).astype(np.float32).ravel()
    start = np.arange(0, column.size + 1, 4)
    matrix = scipy.sparse.csr_array((weight, column, start), shape=(len(place), edge * edge))
    return Rotator(pixels, rotations, radius, matrix)


def grids_of_images(images: np.ndarray, radius: int, *, threads: int = 1) -> np.ndarray:
    """Return the padded Fourier grids ``[n, 2R+1, 2R+1]`` complex64 of images ``[n, b, b]`` (orthonormal at size b)."""
    box = images.shape[-1]
    size = PADDING * box
    padded = np.zeros((len(images), size, size), dtype=np.float32)
    low = size // 2 - box // 2
    padded[:, low : low + box, low : low + box] = images / _kernel(box)
    spectrum = scipy.fft.fft2(np.fft.ifftshift(padded, axes=(-2, -1)), workers=threads).astype(np.complex64, copy=False)
    index = np.arange(-radius, radius + 1) % size
    return spectrum[:, index[:, None], index[None, :]] / np.float32(box)


def images_of_grids(grids: np.ndarray, box: int, *, threads: int = 1) -> np.ndarray:
    """Return the real images ``[n, box, box]`` float32 of Hermitian padded grids that `Rotator.add_up` filled."""
    radius = grids.shape[-1] // 2
    size = PADDING * box
    spectrum = np.zeros((len(grids), size, size), dtype=np.complex64)
    index = np.arange(-radius, radius + 1) % size
    spectrum[:, index[:, None], index[None, :]] = grids * np.float32(box)
    images = np.fft.fftshift(scipy.fft.ifft2(spectrum, workers=threads).real, axes=(-2, -1))
    low = size // 2 - box // 2
    return (images[:, low : low + box, low : low + box] / _kernel(box)).astype(np.float32)


def grid_shells(radius: int) -> np.ndarray:
    """Return the shell (unpadded Fourier pixels, rounded) of every cell of a padded grid, int64 ``[2R+1, 2R+1]``."""
    axis = np.arange(-radius, radius + 1) / PADDING
    return np.rint(np.hypot(axis[:, None], axis[None, :])).astype(np.int64)


def _kernel(box: int) -> np.ndarray:
    line = np.sinc((np.arange(box) - box // 2) / (PADDING * box)) ** 2
    return np.outer(line, line).astype(np.float32)
