"""Global motion of a movie: every pair of frames is correlated, and one track must explain all correlations.

The method is FlexAlign's (Střelák et al. 2020, Electronics 9:1040, doi:10.3390/electronics9061040). Differences: The
track is searched in the maps of all pairs at once (`track_search`), because a pair of weak frames has no peak of its own.
Positions from peaks, by least squares with Cauchy weights, are one start of that search. At the end each frame is moved
against the sum of all others. The reference is the middle frame. A shift is what must be *applied* to a frame to bring it
onto the reference frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cryopipe.errors import InputError
from cryopipe.movies.motion.correlation import CorrelationGrid, correlation_peak, whitened
from cryopipe.movies.motion.pair_maps import map_peaks, pair_maps
from cryopipe.movies.motion.track_search import search_track

#: Smallest scale of the residuals, Å: below it rounding would decide the weights.
_SMALLEST_SCALE = 0.02
#: At least this share of the frame pairs is assumed to be right. It sets the scale of the weights.
_GOOD_SHARE = 0.25
#: Half width of the last search in steps of a sixth of the resolution. A frame is moved if its peak exceeds so many standard
#: errors. Noise reaches 2.5 in such a small window.
_REFINE_STEPS, _PEAK = 3, 4.0
#: Two frames are compared at shifts up to this many resolutions. A longer track is followed through pairs of closer frames.
_RANGE = 4.0
#: Number of groups into which the frames of a longer movie are added for the search.
_MOST_GROUPS = 64


@dataclass(frozen=True)
class GlobalMotion:
    """Trajectory of a movie.

    Attributes
    ----------
    shifts_px : ndarray ``[n, 2]``
        (x, y) to apply to each frame, unbinned pixels; zero at ``reference``.
    reference : int
        Reference frame, zero-based.
    residual_px : float
        Root mean square residual, per axis, of the agreeing pairs' shifts.
    agreeing : float
        Share of frame pairs whose measured shift agrees with the trajectory to a quarter of the correlation's
        resolution.
    """

    shifts_px: np.ndarray
    reference: int
    residual_px: float
    agreeing: float


def solve_positions(
    pairs: np.ndarray,
    differences: np.ndarray,
    usable: np.ndarray,
    n_frames: int,
    *,
    reference: int,
    iterations: int = 20,
) -> np.ndarray | None:
    """Solve s_j - s_i = d_ij for the frames' shifts by least squares with Cauchy weights.

    Parameters
    ----------
    pairs, differences, usable : ndarray ``[p, 2]``, ``[p, 2]``, ``[p]``
        Frames (i, j); measured shift (x, y) of j minus that of i; whether it is a measurement.
    n_frames, reference : int
        Number of frames; the one whose shift is zero.
    iterations : int
        Rounds of re-weighting. A cut at 3 standard deviations, as in FlexAlign, keeps most outliers if they are the
        majority. At 0.7 electrons per pixel and frame they were two thirds of all pairs, on a real micrograph
        thinned into frames.

    Returns
    -------
    ndarray ``[n_frames, 2]`` or None
        None where the usable equations do not connect all frames.
    """
    if n_frames == 1:
        return np.zeros((1, 2))
    weight = usable.astype(np.float64)
    if connected_components(coo_array((weight, pairs.T), shape=(n_frames, n_frames)), directed=False)[0] > 1:
        return None
    shifts = _least_squares(pairs, differences, weight, n_frames, reference)
    for _ in range(iterations):
        size = _residuals(pairs, differences, shifts)
        scale = max(2.0 * float(np.quantile(size[usable], _GOOD_SHARE)), _SMALLEST_SCALE)
        new = usable / (1.0 + (size / scale) ** 2)
        shifts = _least_squares(pairs, differences, new, n_frames, reference)
        settled = np.abs(new - weight).max() < 1e-4
        weight = new
        if settled:
            break
    return shifts


def _residuals(pairs: np.ndarray, differences: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Return the length of the residual of every equation."""
    rest = differences - (shifts[pairs[:, 1]] - shifts[pairs[:, 0]])
    length: np.ndarray = np.hypot(rest[:, 0], rest[:, 1])
    return length


def _least_squares(
    pairs: np.ndarray, differences: np.ndarray, weight: np.ndarray, n_frames: int, reference: int
) -> np.ndarray:
    """Solve the normal equations, whose matrix is the Laplacian of the graph of weighted pairs."""
    laplacian = np.zeros((n_frames, n_frames))
    right = np.zeros((n_frames, 2))
    i, j = pairs.T
    np.add.at(laplacian, (i, i), weight)
    np.add.at(laplacian, (j, j), weight)
    np.add.at(laplacian, (i, j), -weight)
    np.add.at(laplacian, (j, i), -weight)
    np.add.at(right, j, weight[:, None] * differences)
    np.add.at(right, i, -weight[:, None] * differences)
    free = np.delete(np.arange(n_frames), reference)
    matrix = laplacian[np.ix_(free, free)]
    shifts = np.zeros((n_frames, 2))
    shifts[free] = np.linalg.solve(matrix, right[free])
    return shifts


def refine_against_rest(
    spectra: Sequence[np.ndarray],
    grid: CorrelationGrid,
    shifts_px: np.ndarray,
    *,
    reference: int,
    iterations: int = 5,
    tolerance_px: float = 0.01,
    threads: int = 1,
) -> np.ndarray:
    """Move every frame to where it correlates best with the sum of all others, until nothing moves.

    This maximises the sum of all pair correlations at once. A frame is compared with n - 1 others instead of one, so
    that frames which are too weak for pairs are aligned, too. It needs a start near the answer. Unblur and RELION align
    in this way from the beginning.

    Parameters
    ----------
    spectra, grid : as in :func:`cryopipe.movies.motion.pair_maps.pair_maps`
    shifts_px : ndarray ``[n, 2]``
        Starting shifts (x, y); not modified.
    reference : int
        Frame whose shift stays zero.
    iterations : int
        Largest number of rounds.
    tolerance_px : float
        Largest change in the last iteration.
    threads : int
        Threads.

    Returns
    -------
    ndarray ``[n, 2]``
    """
    step = grid.resolution_A / 6.0
    window = step * np.arange(-_REFINE_STEPS, _REFINE_STEPS + 1)
    columns = np.exp(2j * np.pi * grid.kx[:, None] * window).astype(np.complex64)
    rows = np.exp(2j * np.pi * window[:, None] * grid.ky).astype(np.complex64)
    shifts = shifts_px.copy()
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for _ in range(iterations):
            placed = list(pool.map(lambda i, s: moved(spectra[i], grid, s), range(len(spectra)), shifts))
            total = np.sum(placed, axis=0)

            def correct(frame: np.ndarray, total: np.ndarray = total) -> tuple[float, float, bool]:
                product = frame * np.conj(total - frame)
                x, y, inside, height = correlation_peak(product, rows, columns, window, grid)
                noise = float(np.sqrt(0.5 * np.vdot(product, product).real))
                return x, y, inside and height > _PEAK * noise

            found = np.array([(x, y) if ok else (0.0, 0.0) for x, y, ok in pool.map(correct, placed)])
            new = shifts - found / grid.pixel_size_A
            new -= new[reference]
            change = float(np.abs(new - shifts).max())
            shifts = new
            if change < tolerance_px:
                break
    return shifts


def moved(spectrum: np.ndarray, grid: CorrelationGrid, shift_px: np.ndarray) -> np.ndarray:
    """Return the spectrum with its content moved by ``shift_px`` (x, y)."""
    x, y = shift_px * grid.pixel_size_A
    ramp_y = np.exp(-2j * np.pi * grid.ky * y).astype(np.complex64)[:, None]
    ramp_x = np.exp(-2j * np.pi * grid.kx * x).astype(np.complex64)[None, :]
    result: np.ndarray = spectrum * ramp_x * ramp_y
    return result


def estimate_global_motion(
    spectra: Sequence[np.ndarray],
    grid: CorrelationGrid,
    *,
    max_shift_A: float | None = None,
    robust_iterations: int = 20,
    refine_iterations: int = 5,
    threads: int = 1,
) -> GlobalMotion:
    """Estimate one shift per frame; the reference is frame ``n // 2``.

    Parameters
    ----------
    spectra : sequence of ndarray ``[ky, kx]`` complex64
        Of :func:`cryopipe.movies.motion.correlation.correlation_spectrum`, one per frame.
    grid : CorrelationGrid
        Filter and frequencies of the spectra.
    max_shift_A : float, optional
        Largest shift between any two frames along x or y. None: no bound. Then frames are compared at shifts up to four
        resolutions, and a longer motion is followed from frame to frame.
    robust_iterations : int
        Largest number of rounds of re-weighting of the frame pairs.
    refine_iterations : int
        Largest number of rounds in which every frame is moved against the sum of the others.
    threads : int
        Threads.

    Raises
    ------
    InputError
        The movie has no frames.
    """
    n = len(spectra)
    if n == 0:
        raise InputError("the movie has no frames, so it cannot be aligned. Leave it out.")
    if n == 1:
        return GlobalMotion(np.zeros((1, 2)), 0, 0.0, 1.0)
    spectra = whitened(spectra, grid)
    groups = np.array_split(np.arange(n), min(n, _MOST_GROUPS))
    sums = spectra if len(groups) == n else [np.sum([spectra[t] for t in g], axis=0) for g in groups]
    widest = np.inf if max_shift_A is None else max_shift_A
    maps = pair_maps(sums, grid, min(_RANGE * grid.resolution_A, widest))
    peaks, inside = map_peaks(maps)
    count, reference = len(groups), len(groups) // 2
    start = solve_positions(maps.pairs, peaks, inside, count, reference=reference, iterations=robust_iterations)
    starts = [] if start is None else [start]
    found, camera = search_track(maps, count, starts, fastest_A=grid.resolution_A * n / count, widest_A=widest)
    middles = np.array([g.mean() for g in groups])
    shifts = np.stack([np.interp(np.arange(n), middles, axis) for axis in found.T], axis=1) / grid.pixel_size_A
    shifts -= shifts[n // 2]
    if camera:
        spectra = without_pattern(spectra, grid, shifts)
    shifts = refine_against_rest(spectra, grid, shifts, reference=n // 2, iterations=refine_iterations, threads=threads)
    track = np.array([shifts[g].mean(axis=0) for g in groups]) * grid.pixel_size_A
    residuals = _residuals(maps.pairs, peaks, track)
    agreeing = residuals <= 0.25 * grid.resolution_A
    residual = float(np.sqrt(np.mean(residuals[agreeing] ** 2) / 2.0)) if agreeing.any() else 0.0
    return GlobalMotion(shifts, n // 2, residual / grid.pixel_size_A, float(agreeing.mean()))


def without_pattern(spectra: Sequence[np.ndarray], grid: CorrelationGrid, shifts_px: np.ndarray) -> list[np.ndarray]:
    """Return the spectra without the pattern that stays on the camera while the specimen moves along ``shifts_px``.

    The pattern is the mean of the frames minus the part of the specimen, which follows from the mean of the moved frames. For
    coarse detail the motion is too small to separate the two. There the pattern is zero, and nothing is subtracted.
    """
    mean = np.mean(spectra, axis=0)
    moved_mean = np.mean([moved(s, grid, shift) for s, shift in zip(spectra, shifts_px, strict=True)], axis=0)
    ones = np.ones_like(mean)
    smear = np.mean([moved(ones, grid, -shift) for shift in shifts_px], axis=0)
    pattern = mean - smear * moved_mean
    return [spectrum - pattern for spectrum in spectra]
