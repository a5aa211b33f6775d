"""Gaussian blobs projected into images without any grid in between; each is cut off at 4.5 standard deviations."""

from __future__ import annotations

import numpy as np

from cryopipe.kernels._dispatch import check, check_on_cpu
from cryopipe.kernels.cpu.scattering import blobs as cpu


def project(
    positions: np.ndarray,
    weights: np.ndarray,
    sigmas: np.ndarray,
    rotations: np.ndarray,
    origins: np.ndarray,
    images: np.ndarray,
) -> None:
    """Add the projections of m blobs to n images; the origin of the blobs is pixel ``box // 2``.

    Parameters
    ----------
    positions : float64 [m, 3]
        x, y, z of the blobs, pixels.
    weights, sigmas : float64 [m]
        Integrals, and standard deviations in pixels.
    rotations : float64 [n, 3, 3]
        A blob at p appears at the first two components of ``A p``.
    origins : float64 [n, 2]
        Shift (x, y) that would centre the image, pixels.
    images : float32 [n, box, box]
        Receives the sums.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, or an array of the GPU.
    """
    check_on_cpu(positions=positions, weights=weights, sigmas=sigmas, rotations=rotations, images=images)
    check("positions", positions, np.float64, (None, 3))
    for name, array in (("weights", weights), ("sigmas", sigmas)):
        check(name, array, np.float64, (len(positions),))
    check("rotations", rotations, np.float64, (None, 3, 3))
    check("origins", origins, np.float64, (len(rotations), 2))
    check("images", images, np.float32, (len(rotations), None, images.shape[-1]))
    cpu.project(positions, weights, sigmas, rotations, origins, images)
