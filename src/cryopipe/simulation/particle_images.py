"""Single-particle images of a model of Gaussian blobs (or atoms) with known poses, CTFs and noise, without micrographs.

Every blob is projected analytically, so the images are independent of all interpolation in the engines: they judge
searches and reconstructions. The noise is white with standard deviation one, as in normalised particles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryopipe.imaging.optics import CtfParameters, ctf
from cryopipe.kernels.scattering import blobs


@dataclass(frozen=True)
class BlobModel:
    """Gaussian blobs.

    Attributes
    ----------
    positions_A : array float64 [m, 3]
        x, y, z in Å from the particle's centre.
    weights : array float64 [m]
        Integrals.
    sigmas_A : array float64 [m]
        Standard deviations.
    """

    positions_A: NDArray[np.float64]
    weights: NDArray[np.float64]
    sigmas_A: NDArray[np.float64]

    def copies(self, operators: NDArray[np.float64]) -> BlobModel:
        """Return the model made of the copies of this one under ``operators`` ``[g, 3, 3]``."""
        positions = np.einsum("gij,mj->gmi", operators, self.positions_A).reshape(-1, 3)
        count = len(operators)
        return BlobModel(positions, np.tile(self.weights, count), np.tile(self.sigmas_A, count))


def random_shell(
    rng: np.random.Generator, *, blobs: int, outer_radius_A: float, inner_radius_A: float, sigma_A: tuple[float, float]
) -> BlobModel:
    """Return blobs at random positions in a spherical shell: an asymmetric unit for :meth:`BlobModel.copies`.

    Parameters
    ----------
    rng : Generator
        Source of positions, weights (0.5 to 1.5) and widths.
    blobs : int
        Number of blobs.
    outer_radius_A, inner_radius_A : float
        Radii of the shell, Å.
    sigma_A : (float, float)
        Range of the blobs' standard deviations, Å.
    """
    directions = rng.normal(size=(blobs, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    radii = np.cbrt(rng.uniform(inner_radius_A**3, outer_radius_A**3, blobs))
    sigmas = rng.uniform(*sigma_A, size=blobs)
    return BlobModel(directions * radii[:, None], rng.uniform(0.5, 1.5, blobs), sigmas)


def project(
    model: BlobModel,
    rotations: NDArray[Any],
    *,
    box: int,
    pixel_size_A: float,
    shifts_px: NDArray[Any] | None = None,
) -> NDArray[np.float32]:
    """Project the model along many views.

    Parameters
    ----------
    model : BlobModel
        m blobs.
    rotations : array [n, 3, 3]
        A blob at p (column vector x, y, z) appears at the first two components of ``A p``.
    box : int
        Side of the images in px; the particle's centre is pixel ``box // 2``.
    pixel_size_A : float
        Å.
    shifts_px : array [n, 2], optional
        Origin (x, y): the shift that has to be applied to the image to centre it, so the particle lies at minus this.

    Returns
    -------
    array float32 [n, y, x]
        Integral of the density along the view.
    """
    count = len(rotations)
    origins = np.zeros((count, 2)) if shifts_px is None else np.asarray(shifts_px, dtype=np.float64)
    images = np.zeros((count, box, box), dtype=np.float32)
    blobs.project(
        np.ascontiguousarray(model.positions_A / pixel_size_A),
        model.weights / pixel_size_A**2,
        model.sigmas_A / pixel_size_A,
        np.ascontiguousarray(rotations, dtype=np.float64),
        np.ascontiguousarray(origins),
        images,
    )
    return images


def density(model: BlobModel, *, box: int, pixel_size_A: float) -> NDArray[np.float32]:
    """Sample the model's density in a cube ``[z, y, x]`` whose centre is voxel ``box // 2``.

    Its sum over voxels along z is the projection of :func:`project` for the identity.
    """
    axis = (np.arange(box) - box // 2) * pixel_size_A
    volume = np.zeros((box, box, box))
    for centre, weight, sigma in zip(model.positions_A, model.weights, model.sigmas_A, strict=True):
        gx, gy, gz = (np.exp(-0.5 * ((axis - c) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi)) for c in centre)
        keep = [np.flatnonzero(g > 1e-6 * g.max()) if g.max() > 0 else np.arange(0) for g in (gz, gy, gx)]
        part = np.einsum("z,y,x->zyx", gz[keep[0]], gy[keep[1]], gx[keep[2]])
        volume[np.ix_(*keep)] += weight * pixel_size_A * part
    return volume.astype(np.float32)


def image_particles(
    projections: NDArray[np.float32],
    parameters: CtfParameters,
    *,
    pixel_size_A: float,
    snr: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Apply CTFs and add white noise of standard deviation one.

    Parameters
    ----------
    projections : array float32 [n, y, x]
        Noise-free projections.
    parameters : CtfParameters
        One CTF per image (protein stays positive).
    pixel_size_A : float
        Å.
    snr : float
        Variance of the signal over that of the noise, over the whole box after the CTF, of an average image.
    rng : Generator
        Source of the noise.

    Returns
    -------
    array float32 [n, y, x]
    """
    count, box, _ = projections.shape
    ky = scipy.fft.fftfreq(box, pixel_size_A)[:, None]
    kx = scipy.fft.rfftfreq(box, pixel_size_A)[None, :]
    images = np.empty_like(projections)
    for start in range(0, count, 64):
        part = slice(start, start + 64)
        transfer = ctf(kx, ky, parameters.subset(part)).astype(np.float32)
        images[part] = scipy.fft.irfft2(scipy.fft.rfft2(projections[part]) * transfer, s=(box, box))
    spread = math.sqrt(float(images.var(axis=(1, 2), dtype=np.float64).mean()))
    images *= np.float32(math.sqrt(snr) / spread)
    images += rng.standard_normal(images.shape, dtype=np.float32)
    return images
