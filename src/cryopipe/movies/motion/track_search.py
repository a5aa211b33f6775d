"""The track of a movie from the correlation maps of all its pairs at once: first straight tracks, then bent ones.

No pair of frames needs a peak of its own. A track is judged by the sum of all maps at the shifts that it predicts. Up to a
constant this sum is the likelihood of the movie. All straight tracks up to one resolution per frame are tried (faster motion
blurs all detail of a frame). The best one is bent, mode by mode, first in steps of half the resolution, then in smaller
ones. The range of a map limits the shifts at which two frames are compared. It does not limit the length of the track: a
drift of 100 Å is followed through frames that are close in time.

A pattern of the camera (an imperfect gain) makes a peak at zero shift in every map. A specimen that moved makes a peak
elsewhere. So if the maps without the camera's part have a significant track, this track is that of the specimen, however
high the other peak is.
"""

from __future__ import annotations

import numpy as np

from cryopipe.kernels.motion.tracks import climb, scan, sum_at
from cryopipe.movies.motion.pair_maps import STEPS, PairMaps

#: Longest lag of the straight tracks. Longer lags need a finer grid of velocities, and motion is not straight for so long.
_LONGEST_LAG = 24
#: Step of velocities: two neighbouring ones differ by half a resolution at the longest lag.
_VELOCITY = 0.5
#: Largest numbers of half periods of a wave, and of rounds over all modes. Single frames are moved later, in `global_alignment`.
_BENDS, _SWEEPS = 6, 3
#: Half widths of the search of a mode's amplitude, in its steps: first wide, then narrow.
_WIDE, _NEAR = 5, 3
#: A track other than the camera's is accepted at so many standard errors (in noise the best of all tracks reached 3 to 6), and
#: if the two differ by so many resolutions. Closer tracks are one peak.
SIGNIFICANT, _APART = 8.0, 1.5


def _extent(track: np.ndarray) -> float:
    return float(np.ptp(track, axis=0).max())


def _modes(n: int) -> np.ndarray:
    """Return shapes of tracks ``[m, n]`` with extent 1: a straight one, two that settle, and at most n / 2 - 1 waves."""
    t = (np.arange(n) + 0.5) / n
    shapes = [t, np.exp(-12 * t), np.exp(-4 * t)]
    shapes += [0.5 * np.cos(np.pi * m * t) for m in range(2, min(n // 2, _BENDS) + 1)]
    return np.array(shapes)


def straight_track(maps: PairMaps, n: int, fastest_A: float) -> np.ndarray:
    """Return the best straight track ``[n, 2]``, Å, with at most ``fastest_A`` per frame along x and y."""
    lag = maps.pairs[:, 1] - maps.pairs[:, 0]
    lags = np.arange(1, min(n - 1, _LONGEST_LAG) + 1)
    sums = np.array([maps.maps[lag == d].sum(axis=0) for d in lags])
    step = _VELOCITY * STEPS * maps.step_A / lags[-1]
    half = max(1, int(fastest_A / step))
    velocities = step * np.arange(-half, half + 1)
    score = scan(sums, lags, velocities, 1.0 / maps.step_A)
    y, x = np.unravel_index(int(score.argmax()), score.shape)
    track: np.ndarray = np.arange(n)[:, None] * np.array([velocities[x], velocities[y]])
    return track


def bent_track(maps: PairMaps, start_A: np.ndarray, widest_A: float) -> tuple[np.ndarray, float]:
    """Bend the track ``start_A`` [n, 2] so that the sum of the maps is largest. Return it and the sum in standard errors."""
    n, track = len(start_A), start_A.astype(np.float64).copy()
    first, second = maps.pairs[:, 0].copy(), maps.pairs[:, 1].copy()
    modes, scale = _modes(n), 1.0 / maps.step_A
    for step, half in ((2.0 * maps.step_A, _WIDE), (maps.step_A, _NEAR), (0.5 * maps.step_A, _NEAR)):
        for _ in range(_SWEEPS):
            before = track.copy()
            climb(maps.maps, first, second, track, modes, step=step, half=half, scale=scale, widest=widest_A)
            if np.array_equal(before, track):
                break
    total, inside = sum_at(maps.maps, first, second, track, scale)
    return track, total / np.sqrt(max(inside, 1))


def without_still(maps: PairMaps) -> PairMaps:
    """Return the maps without their common part, which is from the pattern of the camera and from detail that did not move."""
    still = maps.maps.mean(axis=0)
    still /= max(float(np.sqrt((still**2).sum())), 1e-30)
    share = np.tensordot(maps.maps, still, axes=2)
    return PairMaps(maps.pairs, maps.maps - share[:, None, None] * still, maps.step_A)


def search_track(
    maps: PairMaps, n: int, starts_A: list[np.ndarray], *, fastest_A: float, widest_A: float
) -> tuple[np.ndarray, bool]:
    """Find the track of a movie.

    Parameters
    ----------
    maps : PairMaps
        Maps of all pairs.
    n : int
        Number of frames.
    starts_A : list of ndarray ``[n, 2]``
        Further tracks to start from.
    fastest_A : float
        Largest step between two frames along x and y.
    widest_A : float
        Largest shift between any two frames along x and y.

    Returns
    -------
    shifts_A : ndarray ``[n, 2]``
        (x, y) to apply to the frames, Å. Their mean is arbitrary.
    camera : bool
        Whether there is also a pattern of the camera, from which the track was separated.
    """
    fastest = min(fastest_A, widest_A / max(n - 1, 1))
    starts = [np.zeros((n, 2)), straight_track(maps, n, fastest), *starts_A]
    found = [bent_track(maps, start, widest_A) for start in starts if _extent(start) <= widest_A]
    moving = without_still(maps)
    other, score = bent_track(moving, straight_track(moving, n, fastest), widest_A)
    found.append(bent_track(maps, other, widest_A))
    best, _ = max(found, key=lambda pair: pair[1])
    if score >= SIGNIFICANT and _extent(other - best) > _APART * STEPS * maps.step_A:
        return other, True
    return best, False
