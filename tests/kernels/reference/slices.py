"""Slices by their definition on a *full* cube, so that no rule about halves and mates is needed."""

from __future__ import annotations

import itertools

import numpy as np


def full_cube(half: np.ndarray) -> np.ndarray:
    """Return complex128 [2R+1, 2R+1, 2R+1] of a half cube, kx from -R to R, by Friedel's law V(-k) = V(k)*."""
    half = half.astype(np.complex128)
    return np.concatenate([np.conj(half[::-1, ::-1, :0:-1]), half], axis=2)


def neighbours(position: np.ndarray) -> list[tuple[tuple[int, int, int], float]]:
    """Return [(integer voxel (x, y, z), trilinear share), ...] of the 8 voxels around a position (x, y, z)."""
    lower = np.floor(position).astype(int)
    fraction = position - lower
    found = []
    for corner in itertools.product((0, 1), repeat=3):
        share = np.prod(np.where(np.array(corner) == 1, fraction, 1 - fraction))
        found.append((tuple(lower + corner), float(share)))
    return found


def extract_slices(cube, rotations, kx, ky, *, padding=2):
    full, radius = full_cube(cube), cube.shape[2] - 1
    out = np.zeros((len(rotations), len(kx)), np.complex128)
    for n, a in enumerate(rotations.astype(np.float64)):
        for k in range(len(kx)):
            for (x, y, z), share in neighbours(padding * (a.T @ np.array([kx[k], ky[k], 0.0]))):
                out[n, k] += share * full[z + radius, y + radius, x + radius]
    return out


def insert_slices(numerator, weight, rotations, values, weights, kx, ky, *, padding=2):
    radius = numerator.shape[2] - 1
    full = np.zeros((2 * radius + 1,) * 3, np.complex128)
    full_weight = np.zeros((2 * radius + 1,) * 3)
    for n, a in enumerate(rotations.astype(np.float64)):
        for k in range(len(kx)):
            position = padding * (a.T @ np.array([kx[k], ky[k], 0.0]))
            for q, value in ((position, values[n, k]), (-position, np.conj(values[n, k]))):
                for (x, y, z), share in neighbours(q):
                    full[z + radius, y + radius, x + radius] += share * value
                    full_weight[z + radius, y + radius, x + radius] += share * weights[n, k]
    numerator += full[:, :, radius:]
    weight += full_weight[:, :, radius:]
