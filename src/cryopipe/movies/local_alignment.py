"""Local motion: a smooth field of shifts over the frame and time, fitted to the motion of patches.

FlexAlign's model (Střelák et al. 2020, doi:10.3390/electronics9061040): a cubic B-spline over (x, y, t), fitted by
robust least squares, as smooth as patches left out of the fit demand. Patches are about 500 Å wide; in each, groups of
neighbouring frames, already moved by the global shifts, are aligned as the frames of a movie are (all pairs, then each
against the rest). An observation is the mean of the field over a group minus that over the reference group, so that
the rounding of time to groups costs nothing. The field is zero in the reference frame. Frames are kept binned as
float16: their noise is far above its rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryopipe.errors import ItemError
from cryopipe.kernels.warp import node_count
from cryopipe.movies.correlation import CorrelationGrid, correlation_grid, correlation_spectrum
from cryopipe.movies.global_alignment import estimate_global_motion, moved

#: Below this many patches along a side the cubic field is not determined.
_FEWEST_PATCHES = 4
#: A local model beyond these is no motion of a specimen (card of the method; RELION rejects at 10 px too).
_LARGEST_RMS_PX, _LARGEST_SHIFT_PX = 10.0, 20.0
_ROUNDS, _TRIAL_ROUNDS = 15, 5
#: Relative weights of the curvature of the coefficients; which one, held-out patches decide.
_CURVATURES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_FOLDS = 4


@dataclass(frozen=True)
class LocalMotion:
    """Field of shifts beside the global ones.

    Attributes
    ----------
    coefficients : ndarray ``[2, lt, ly, lx]``
        Of the cubic B-spline, (x, y) in unbinned pixels; control points from one spacing before the first pixel.
    shape : tuple of int
        Frames and frame (n, y, x).
    reference : int
        Frame whose field is zero.
    residual_px : float
        Robust root mean square residual, per axis, of the patches' shifts.
    patches : tuple of int
        Along (y, x).
    """

    coefficients: np.ndarray
    shape: tuple[int, int, int]
    reference: int
    residual_px: float
    patches: tuple[int, int]

    def at(self, frame: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the shifts (x, y) to apply at rows ``y`` [a] and columns ``x`` [b] of ``frame``: ``[2, a, b]``."""
        _, lt, ly, lx = self.coefficients.shape
        n, ny, nx = self.shape
        time = spline_values(np.array([frame, self.reference], dtype=np.float64), n, lt)
        plane = np.einsum("t,ctyx->cyx", time[0] - time[1], self.coefficients)
        rows, columns = spline_values(y, ny, ly), spline_values(x, nx, lx)
        field: np.ndarray = np.einsum("ay,cyx,bx->cab", rows, plane, columns, optimize=True)
        return field

    def nodes(self, frame: int, spacing: int) -> np.ndarray:
        """Return the field ``[2, gy, gx]`` of ``frame`` at nodes ``spacing`` pixels apart, as the warp wants it."""
        y, x = (spacing * np.arange(node_count(length, spacing), dtype=np.float64) for length in self.shape[1:])
        return self.at(frame, np.minimum(y, self.shape[1] - 1), np.minimum(x, self.shape[2] - 1))


def spline_values(position: np.ndarray, length: int, count: int) -> np.ndarray:
    """Return the ``count`` cubic B-splines over 0..length-1 at ``position`` [p]: ``[p, count]``."""
    spacing = max(length - 1, 1) / (count - 3)
    distance = np.abs(np.asarray(position, dtype=np.float64)[:, None] / spacing - (np.arange(count) - 1.0))
    near = 2 / 3 - distance**2 * (1 - distance / 2)
    far = np.maximum(2 - distance, 0.0) ** 3 / 6
    return np.where(distance < 1, near, far)


def control_points(shape: tuple[int, int, int], pixel_size_A: float, patches: tuple[int, int]) -> tuple[int, int, int]:
    """Return FlexAlign's numbers of control points along (t, y, x), never more than there are patches."""
    n, ny, nx = shape
    space = [
        min(max(int(length * pixel_size_A / 1000) + 2, _FEWEST_PATCHES), count)
        for length, count in zip((ny, nx), patches, strict=True)
    ]
    return max(-(-n // 7) + 2, 4), space[0], space[1]


def patch_layout(
    shape: tuple[int, int], pixel_size_A: float, patch_A: float, margin_px: float
) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Return first rows and first columns of the patches and their side, in pixels, or None for too small a frame.

    The patches spread, overlapping, over the frame without ``margin_px`` at the borders, which global motion takes.
    """
    side = int(patch_A / pixel_size_A)
    starts = []
    for length in shape:
        if length - 2 * margin_px < 1.5 * side:
            return None
        count = max(_FEWEST_PATCHES, int(np.ceil(length / side)))
        starts.append(np.linspace(margin_px, length - margin_px - side, count))
    return starts[0], starts[1], side


def estimate_local_motion(
    frames: Sequence[np.ndarray],
    block: int,
    shape: tuple[int, int],
    pixel_size_A: float,
    shifts_px: np.ndarray,
    *,
    reference: int,
    resolution_A: float,
    patch_A: float,
    group: int,
    max_shift_A: float,
    workers: int = 1,
) -> LocalMotion | None:
    """Measure the patches' motion and fit the field.

    Parameters
    ----------
    frames : sequence of ndarray ``[y, x]``
        Corrected frames binned by ``block``, their mean removed.
    block : int
        Binning.
    shape : tuple of int
        Unbinned frame (y, x).
    pixel_size_A : float
        Unbinned.
    shifts_px : ndarray ``[n, 2]``
        Global shifts (x, y).
    reference : int
        Frame whose field is zero.
    resolution_A, patch_A, max_shift_A : float
        Low-pass of the correlations; side of a patch; largest local shift between two groups.
    group : int
        Frames that are added up for a correlation.
    workers : int
        Threads.

    Returns
    -------
    LocalMotion or None
        None where the frame is too small for a local model, or the fit is no motion of a specimen.
    """
    n = len(frames)
    layout = patch_layout(shape, pixel_size_A, patch_A, float(np.abs(shifts_px).max()) + block)
    groups = [g for g in np.array_split(np.arange(n), max(n // group, 1)) if len(g)]
    if layout is None or len(groups) < 3:
        return None
    tops, lefts, side = layout
    small = side // block
    grid = correlation_grid((small, small), pixel_size_A * block, resolution_A)
    # the reference of estimate_global_motion is the middle group, whatever frame it holds
    observed = np.zeros((len(groups), len(tops), len(lefts), 2))
    usable = np.zeros(observed.shape[:3])
    for iy, top in enumerate(tops):
        for ix, left in enumerate(lefts):
            spectra = [_group_spectrum(frames, g, (top, left), small, block, grid, shifts_px) for g in groups]
            try:
                motion = estimate_global_motion(spectra, grid, max_shift_A=max_shift_A, workers=workers)
            except ItemError:
                continue  # its pairs do not connect: an empty patch, without weight in the fit
            observed[:, iy, ix] = motion.shifts_px * block
            usable[:, iy, ix] = max(motion.agreeing, 0.05)
    if (usable[0] > 0).sum() < 0.5 * usable[0].size:
        return None
    centre = 0.5 * small * block - 0.5
    points = control_points((n, *shape), pixel_size_A, (len(tops), len(lefts)))
    time = spline_values(np.arange(n), n, points[0])
    time = np.stack([time[g].mean(axis=0) for g in groups])
    time = time - time[len(groups) // 2]
    rows, columns = (
        spline_values(tops + centre, shape[0], points[1]),
        spline_values(lefts + centre, shape[1], points[2]),
    )
    fitted = fit_field(time, rows, columns, observed, usable)
    if fitted is None:
        return None
    coefficients, residual = fitted
    motion_field = LocalMotion(coefficients, (n, *shape), reference, residual, (len(tops), len(lefts)))
    largest = max(
        float(np.quantile(np.abs(motion_field.at(t, tops + centre, lefts + centre)), 0.975)) for t in range(n)
    )
    if residual > _LARGEST_RMS_PX or largest > _LARGEST_SHIFT_PX:
        return None
    return motion_field


def _group_spectrum(
    frames: Sequence[np.ndarray],
    members: np.ndarray,
    corner: tuple[float, float],
    side: int,
    block: int,
    grid: CorrelationGrid,
    shifts_px: np.ndarray,
) -> np.ndarray:
    """Return the summed spectrum of a patch over a group of frames, after the global shifts."""
    total: np.ndarray | None = None
    for frame in members:
        height, width = frames[frame].shape
        wanted_x = (corner[1] - shifts_px[frame, 0]) / block
        wanted_y = (corner[0] - shifts_px[frame, 1]) / block
        x = int(np.clip(round(wanted_x), 0, width - side))
        y = int(np.clip(round(wanted_y), 0, height - side))
        cut = frames[frame][y : y + side, x : x + side].astype(np.float32)
        # cutting at x moves the content by x - wanted less than the global shift asks for
        spectrum = moved(correlation_spectrum(cut, grid), grid, np.array([x - wanted_x, y - wanted_y]))
        total = spectrum if total is None else total + spectrum
    if total is None:
        raise ValueError("a group holds at least one frame.")
    return total


def fit_field(
    time: np.ndarray, rows: np.ndarray, columns: np.ndarray, observed: np.ndarray, usable: np.ndarray
) -> tuple[np.ndarray, float] | None:
    """Fit coefficients ``[2, lt, ly, lx]`` by least squares with Cauchy weights; return them and the rms residual.

    How smooth the field is follows from the data: it is fitted without a quarter of the patches in turn, and must
    predict these. Faint movies, whose patches are mostly noise, would otherwise bend by their noise.

    Parameters
    ----------
    time, rows, columns : ndarray ``[g, lt]``, ``[a, ly]``, ``[b, lx]``
        Splines at the observations; ``time`` less those of the reference.
    observed : ndarray ``[g, a, b, 2]``
        Shifts (x, y).
    usable : ndarray ``[g, a, b]``
        Prior weights.

    Returns
    -------
    tuple or None
        None where no field predicts the patches left out better than no local motion does.
    """
    design = np.einsum("gt,ay,bx->gabtyx", time, rows, columns).reshape(usable.size, -1)
    target = observed.reshape(-1, 2)
    prior = usable.reshape(-1)
    sizes = (time.shape[1], rows.shape[1], columns.shape[1])
    penalty = _curvature(sizes)
    _, y, x = np.indices(usable.shape)
    fold = ((y + 2 * x) % _FOLDS).reshape(-1)  # neighbours are left out in different rounds
    limit = 3.0 * max(float(np.median(np.hypot(*target[prior > 0].T))), 0.02)

    def loss(rest: np.ndarray) -> np.ndarray:
        size: np.ndarray = np.minimum(np.hypot(rest[:, 0], rest[:, 1]), limit) ** 2
        return size

    losses = []
    for curvature in _CURVATURES:
        total = 0.0
        for k in range(_FOLDS):
            solution, _ = _robust_fit(design, target, prior * (fold != k), penalty, curvature, _TRIAL_ROUNDS)
            out = fold == k
            total += float((prior[out] * loss(target[out] - design[out] @ solution)).sum())
        losses.append(total)
    if min(losses) >= float((prior * loss(target)).sum()):
        return None
    best = _CURVATURES[int(np.argmin(losses))]
    solution, residual = _robust_fit(design, target, prior, penalty, best, _ROUNDS)
    return solution.T.reshape(2, *sizes), residual


def _robust_fit(
    design: np.ndarray, target: np.ndarray, prior: np.ndarray, penalty: np.ndarray, curvature: float, rounds: int
) -> tuple[np.ndarray, float]:
    """Return the solution ``[c, 2]`` with Cauchy weights on ``target`` [o, 2], and its weighted rms residual."""
    used = prior > 0
    design, target, prior = design[used], target[used], prior[used]
    weight, rest = prior, np.zeros(len(prior))
    for _ in range(rounds):
        matrix = design.T @ (weight[:, None] * design)
        trace = np.trace(matrix)
        # the tiny ridge settles the gauge: a field constant in time is no motion
        matrix += curvature * trace / np.trace(penalty) * penalty + 1e-9 * trace / len(matrix) * np.eye(len(matrix))
        solution = np.linalg.solve(matrix, design.T @ (weight[:, None] * target))
        rest = np.hypot(*(target - design @ solution).T)
        scale = max(2.0 * float(np.median(rest)), 0.02)
        weight = prior / (1.0 + (rest / scale) ** 2)
    return solution, float(np.sqrt(np.average(rest**2, weights=weight) / 2))


def _curvature(sizes: tuple[int, int, int]) -> np.ndarray:
    """Return the quadratic form of the second differences of coefficients along all three axes."""
    total = np.zeros((int(np.prod(sizes)),) * 2)
    for axis, size in enumerate(sizes):
        second = np.diff(np.eye(size), n=2, axis=0)
        factors = [np.eye(s) for s in sizes]
        factors[axis] = second.T @ second
        total += np.kron(np.kron(factors[0], factors[1]), factors[2])
    return total
