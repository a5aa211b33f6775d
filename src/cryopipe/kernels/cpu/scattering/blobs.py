"""Gaussian blobs projected into images, one image a thread."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange


@njit(cache=True, parallel=True)
def project(positions, weights, sigmas, rotations, origins, images):
    """Add the blobs to ``images`` [n, y, x]; the arguments are those of `cryopipe.kernels.scattering.blobs.project`.

    Parameters
    ----------
    positions, weights, sigmas : float64 [m, 3], [m], [m]
        Centres (x, y, z), integrals and standard deviations, pixels.
    rotations : float64 [n, 3, 3]
        Poses.
    origins : float64 [n, 2]
        Shifts (x, y) that centre the images, pixels.
    images : float32 [n, box, box]
        Receives the sums.
    """
    box = images.shape[1]
    centre = box // 2
    for n in prange(len(rotations)):
        a = rotations[n]
        row = np.empty(box)
        for m in range(len(positions)):
            x, y, z = positions[m]
            u = a[0, 0] * x + a[0, 1] * y + a[0, 2] * z + centre - origins[n, 0]
            v = a[1, 0] * x + a[1, 1] * y + a[1, 2] * z + centre - origins[n, 1]
            reach = 4.5 * sigmas[m]
            scale = 0.5 / sigmas[m] ** 2
            x0, x1 = max(0, math.ceil(u - reach)), min(box - 1, math.floor(u + reach))
            y0, y1 = max(0, math.ceil(v - reach)), min(box - 1, math.floor(v + reach))
            for i in range(x0, x1 + 1):
                row[i] = math.exp(-scale * (i - u) ** 2)
            for j in range(y0, y1 + 1):
                amplitude = weights[m] * scale / math.pi * math.exp(-scale * (j - v) ** 2)
                for i in range(x0, x1 + 1):
                    images[n, j, i] += amplitude * row[i]
