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


def score_poses(cube, images, ctf, inverse_variance, rotations, shifts_px, kx, ky, *, box, padding=2, scale=None):
    shape = shifts_px.shape[:-1]
    shifts = shifts_px.reshape(*shifts_px.shape[:2], -1, 2)
    out = np.zeros(shifts.shape[:3])
    for m in range(shifts.shape[1]):
        for s in range(shifts.shape[2]):
            expected = model(cube, ctf, rotations[:, m], shifts[:, m, s], kx, ky, box=box, padding=padding, scale=scale)
            out[:, m, s] = -0.5 * (np.abs(images - expected) ** 2 * inverse_variance).sum(axis=1)
    return out.reshape(shape)
