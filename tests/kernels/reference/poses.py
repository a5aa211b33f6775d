"""Likelihoods of poses by their definition; derivatives are left to finite differences in the tests."""

from __future__ import annotations

import numpy as np

from tests.kernels.reference.slices import extract_slices


def model(cube, ctf, rotations, shifts_px, kx, ky, *, box, padding=2, scale=None):
    """Return complex128 [n, K]: scale C Y exp(+2 pi i k.t / box)."""
    slices = extract_slices(cube, rotations, kx, ky, padding=padding)
    phase = 2 * np.pi / box * (np.outer(shifts_px[:, 0], kx) + np.outer(shifts_px[:, 1], ky))
    gain = np.ones(len(rotations)) if scale is None else scale
    return gain[:, None] * ctf * slices * np.exp(1j * phase)
