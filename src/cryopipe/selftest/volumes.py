"""Checks of the kernels that work on the half cubes of a reconstruction."""

from __future__ import annotations

import numpy as np

from cryopipe.kernels.volumes import division, shells
from cryopipe.selftest.row import Check, Mover

#: radius of the half cubes, outermost shell and padding of the small test problem
EDGE, RADIUS, PADDING = 21, 9, 2


def _shell() -> np.ndarray:
    k = np.arange(-EDGE, EDGE + 1)
    return np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k[EDGE:] ** 2) / PADDING + 0.5).astype(int)


def _shells_error(move: Mover) -> float:
    """Compare with counts and sums over all voxels."""
    shell = _shell()
    weight = np.random.default_rng(21).random(shell.shape).astype(np.float32)
    inside = shell <= RADIUS
    count = np.bincount(shell[inside])
    total = np.bincount(shell[inside], weights=weight[inside].astype(np.float64))
    errors = (
        np.abs(shells.plane_counts(EDGE, RADIUS, PADDING).sum(axis=0) - count),
        np.abs(shells.plane_sums(weight, RADIUS, PADDING).sum(axis=0) / total - 1),
    )
    return float(max(error.max() for error in errors))


def _division_error(move: Mover) -> float:
    """Compare with 2 / (1 + r) where all weights are one, and in gaps of one voxel: W = 7/8, so w = 7/16 and n = 7/8."""
    shell = _shell()
    weight = np.ones(shell.shape, np.float32)
    # far apart; where kx = 0 the Friedel mate is a gap, too
    gaps = (EDGE + np.array([3, 5, -5]), EDGE + np.array([-4, 6, -6]), np.array([7, 0, 0]))
    weight[gaps] = 0
    added = np.linspace(0.1, 0.5, RADIUS + 1).astype(np.float32)
    floor, part = np.full(RADIUS + 1, 1e-3, np.float32), slice(2, 2 * EDGE)
    found = division.divide(
        (2 * weight).astype(np.complex64), weight, part, floor, added, padding=PADDING, least_share=0.5
    )
    r = np.where(shell <= RADIUS, added[np.minimum(shell, RADIUS)], np.inf).astype(np.float64)
    expected = 2 / (1 + r)
    expected[gaps] = (7 / 8) / (7 / 16 + r[gaps])
    return float(np.abs(found - expected[:, part]).max())


CHECKS = (
    Check("volumes.shells", "counts and sums", _shells_error, 1e-10, on_gpu=False),
    Check("volumes.division", "with and without gaps", _division_error, 1e-5, on_gpu=False),
)
