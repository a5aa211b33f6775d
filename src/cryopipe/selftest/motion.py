"""Checks of the kernels with which the track of a movie is searched."""

from __future__ import annotations

import numpy as np

from cryopipe.kernels.motion import tracks
from cryopipe.selftest.row import Check, Mover


def _tracks_error(move: Mover) -> float:
    """Sum maps that are linear in the shift, whose interpolation is exact, and climb a cone to its tip."""
    w, middle, slope = 17, 8, np.array([0.3, -0.2])
    y, x = np.mgrid[:w, :w] - float(middle)
    first, second = np.array([0, 0, 1]), np.array([1, 2, 2])
    plane = np.broadcast_to((slope[0] * x + slope[1] * y).astype(np.float32), (3, w, w)).copy()
    track = np.array([[0.0, 0.0], [0.7, -1.1], [2.3, 0.4]])
    apart = track[second] - track[first]
    total, inside = tracks.sum_at(plane, first, second, track, 2.0)
    cone = -np.hypot(x - 2, y + 4).astype(np.float32)
    start, line = np.zeros((2, 2)), np.array([[0.0, 1.0]])
    tracks.climb(cone[None], first[:1], second[:1], start, line, step=1.0, half=5, scale=1.0, widest=100.0)
    velocities = np.arange(-5.0, 6.0)
    best = np.unravel_index(tracks.scan(cone[None], np.array([1]), velocities, 1.0).argmax(), (11, 11))
    errors = [total - 2 * (apart @ slope).sum(), inside - 3, *(start[1] - [2, -4])]
    errors += [velocities[best[1]] - 2, velocities[best[0]] + 4]
    return float(np.abs(errors).max())


CHECKS = (Check("motion.tracks", "sums along tracks", _tracks_error, 1e-5, on_gpu=False),)
