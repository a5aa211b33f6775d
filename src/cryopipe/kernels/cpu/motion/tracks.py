"""Sums of correlation maps along tracks."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def sum_at(maps, first, second, track, scale):
    """Return the sum of the maps at the differences of a track, and the number of differences inside the maps.

    Parameters
    ----------
    maps, first, second, track, scale
        As in `cryopipe.kernels.motion.tracks.sum_at`.
    """
    w = maps.shape[1]
    middle = w // 2
    total, inside = 0.0, 0
    for p in range(maps.shape[0]):
        x = (track[second[p], 0] - track[first[p], 0]) * scale + middle
        y = (track[second[p], 1] - track[first[p], 1]) * scale + middle
        if x < 0 or y < 0 or x >= w - 1 or y >= w - 1:
            continue
        i, j = int(y), int(x)
        f, g = y - i, x - j
        m = maps[p]
        total += (1 - f) * ((1 - g) * m[i, j] + g * m[i, j + 1]) + f * ((1 - g) * m[i + 1, j] + g * m[i + 1, j + 1])
        inside += 1
    return total, inside


@njit(cache=True, nogil=True)
def _extent(track):
    return max(track[:, 0].max() - track[:, 0].min(), track[:, 1].max() - track[:, 1].min())


@njit(cache=True, nogil=True)
def climb(maps, first, second, track, modes, step, half, scale, widest):
    """Move ``track`` along each of ``modes`` [m, n] to where the sum is largest, in place. Return the sum.

    Parameters
    ----------
    maps, first, second, track, modes, step, half, scale, widest
        As in `cryopipe.kernels.motion.tracks.climb`.
    """
    best, _ = sum_at(maps, first, second, track, scale)
    trial = np.empty_like(track)
    for m in range(modes.shape[0]):
        at_x, at_y = 0, 0
        for b in range(-half, half + 1):
            for a in range(-half, half + 1):
                trial[:, 0] = track[:, 0] + step * a * modes[m]
                trial[:, 1] = track[:, 1] + step * b * modes[m]
                if (a == 0 and b == 0) or _extent(trial) > widest:
                    continue
                value, _ = sum_at(maps, first, second, trial, scale)
                if value > best:
                    best, at_x, at_y = value, a, b
        track[:, 0] += step * at_x * modes[m]
        track[:, 1] += step * at_y * modes[m]
    return best


@njit(cache=True, nogil=True)
def scan(sums, lags, velocities, scale):
    """Return the sum of the maps of all lags at all straight tracks.

    Parameters
    ----------
    sums, lags, velocities, scale
        As in `cryopipe.kernels.motion.tracks.scan`.
    """
    track, score = np.zeros((2, 2)), np.empty((velocities.size, velocities.size))
    zero, one = np.zeros(1, np.int64), np.ones(1, np.int64)
    for b in range(velocities.size):
        for a in range(velocities.size):
            total = 0.0
            for d in range(lags.size):
                track[1, 0], track[1, 1] = lags[d] * velocities[a], lags[d] * velocities[b]
                total += sum_at(sums[d : d + 1], zero, one, track, scale)[0]
            score[b, a] = total
    return score
