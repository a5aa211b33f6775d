"""Global motion of a movie: every pair of frames is correlated, and robust least squares gives the frame positions.

The method is FlexAlign's (Střelák et al. 2020, Electronics 9:1040, doi:10.3390/electronics9061040). Differences: The
correlation maximum is a paraboloid peak on a grid refined around it (the centre of mass of 3 x 3 pixels is biased
towards the grid). Outlying pairs get Cauchy weights. At the end each frame is moved against the sum of all others. The
reference is the middle frame. A shift is what must be *applied* to a frame to bring it onto the reference frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cryopipe.errors import InputError, ItemError
from cryopipe.movies.motion.correlation import CorrelationGrid, correlation_peak, pair_shifts, whitened

#: Smallest scale of the residuals, in pixels: below it rounding would decide the weights.
_SMALLEST_SCALE_PX = 0.02
#: At least this share of the frame pairs is assumed to be right. It sets the scale of the weights.
_GOOD_SHARE = 0.25
#: Half width of the last search in steps of a sixth of the resolution.
_REFINE_STEPS = 3


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
) -> np.ndarray:
    """Solve s_j - s_i = d_ij for the frames' shifts by least squares with Cauchy weights.

    Parameters
    ----------
    pairs, differences, usable : ndarray ``[p, 2]``, ``[p, 2]``, ``[p]``
        Of :func:`pair_shifts`.
    n_frames, reference : int
        Number of frames; the one whose shift is zero.
    iterations : int
        Rounds of re-weighting. A cut at 3 standard deviations, as in FlexAlign, keeps most outliers if they are the
        majority. At 0.7 electrons per pixel and frame they were two thirds of all pairs, on a real micrograph
        thinned into frames.

    Returns
    -------
    ndarray ``[n_frames, 2]``

    Raises
    ------
    ItemError
        The usable equations do not connect all frames.
    """
    if n_frames == 1:
        return np.zeros((1, 2))
    weight = usable.astype(np.float64)
    shifts = _least_squares(pairs, differences, weight, n_frames, reference)
    for _ in range(iterations):
        size = _residuals(pairs, differences, shifts)
        scale = max(2.0 * float(np.quantile(size[usable], _GOOD_SHARE)), _SMALLEST_SCALE_PX)
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
    if np.linalg.matrix_rank(matrix) < len(free):
        raise ItemError(
            "the frames cannot be aligned: too few pairs correlate within the search range. Raise "
            "align_movies.max_shift_A, or leave the movie out."
        )
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
    spectra, grid : as in :func:`pair_shifts`
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
                return correlation_peak(frame * np.conj(total - frame), rows, columns, window, grid)

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
    max_shift_A: float,
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
    max_shift_A : float
        Largest shift between two frames along x or y that is searched.
    robust_iterations : int
        Rounds of re-weighting of the frame pairs, at most.
    refine_iterations : int
        Rounds in which every frame is moved against the sum of the others, at most.
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
    spectra = whitened(spectra, grid)
    pairs, differences, inside = pair_shifts(spectra, grid, max_shift_A=max_shift_A, threads=threads)
    shifts = solve_positions(pairs, differences, inside, n, reference=n // 2, iterations=robust_iterations)
    if n > 1:
        shifts = refine_against_rest(
            spectra, grid, shifts, reference=n // 2, iterations=refine_iterations, threads=threads
        )
    residuals = _residuals(pairs, differences, shifts)
    agreeing = residuals <= 0.25 * grid.resolution_A / grid.pixel_size_A
    residual = float(np.sqrt(np.mean(residuals[agreeing] ** 2) / 2.0)) if agreeing.any() else 0.0
    return GlobalMotion(shifts, n // 2, residual, float(agreeing.mean()) if n > 1 else 1.0)
