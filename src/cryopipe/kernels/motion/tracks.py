"""Sums of the correlation maps of all pairs of frames along a track, and the steps that make such a sum larger."""

from __future__ import annotations

import numpy as np

from cryopipe.kernels._dispatch import check, check_on_cpu
from cryopipe.kernels.cpu.motion import tracks as cpu


def sum_at(
    maps: np.ndarray, first: np.ndarray, second: np.ndarray, track: np.ndarray, scale: float
) -> tuple[float, int]:
    """Return the sum of all maps at the differences of a track, and how many of the differences are inside the maps.

    Parameters
    ----------
    maps : float32 [p, w, w]
        Correlation of each pair of frames, with zero shift at w // 2.
    first, second : int64 [p]
        Frames of each pair.
    track : float64 [n, 2]
        (x, y) of each frame, Å.
    scale : float
        Samples of a map per Å.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, or an array of the GPU.
    """
    _check(maps, first, second, track)
    total, inside = cpu.sum_at(maps, first, second, track, scale)
    return float(total), int(inside)


def climb(
    maps: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    track: np.ndarray,
    modes: np.ndarray,
    *,
    step: float,
    half: int,
    scale: float,
    widest: float,
) -> float:
    """Move a track along each mode, one after the other, to where the sum of the maps is largest. Return the sum.

    Parameters
    ----------
    maps, first, second, scale
        As in `sum_at`.
    track : float64 [n, 2]
        Changed in place.
    modes : float64 [m, n]
        Shapes by which the track is changed in x and y.
    step : float
        Step of the amplitude, Å.
    half : int
        Number of steps to either side.
    widest : float
        Largest extent of the track in x and in y, Å.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, or an array of the GPU.
    """
    _check(maps, first, second, track)
    check("modes", modes, np.float64, (None, len(track)))
    return float(cpu.climb(maps, first, second, track, modes, step, half, scale, widest))


def scan(sums: np.ndarray, lags: np.ndarray, velocities: np.ndarray, scale: float) -> np.ndarray:
    """Return the sum of the maps at all straight tracks, float64 ``[v, v]`` (y velocity, x velocity).

    Parameters
    ----------
    sums : float32 [d, w, w]
        Sum of the maps of all pairs with the same lag.
    lags : int64 [d]
        Number of frames between the two of a pair.
    velocities : float64 [v]
        Å per frame.
    scale : float
        Samples of a map per Å.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, or an array of the GPU.
    """
    check_on_cpu(sums=sums, lags=lags, velocities=velocities)
    check("sums", sums, np.float32, (len(lags), None, None))
    check("lags", lags, np.int64, (None,))
    check("velocities", velocities, np.float64, (None,))
    return np.asarray(cpu.scan(sums, lags, velocities, scale))


def _check(maps: np.ndarray, first: np.ndarray, second: np.ndarray, track: np.ndarray) -> None:
    check_on_cpu(maps=maps, first=first, second=second, track=track)
    check("maps", maps, np.float32, (len(first), None, None))
    check("first", first, np.int64, (None,))
    check("second", second, np.int64, first.shape)
    check("track", track, np.float64, (None, 2))
