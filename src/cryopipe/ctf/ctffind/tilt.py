"""Tilt of a specimen from the defoci of a micrograph's tiles.

Elferich et al. 2024, eLife 13:RP97227, doi:10.7554/eLife.97227 (CTFFIND5) search tilt and axis on a grid and refine them
by a simplex. Their score is the variance of the sum of tile spectra that are stretched to one defocus. Here the score is
the sum over tiles of the correlation with |CTF| at the tile's own defocus, which determines that variance. The mean defocus
is free, because the blurred rings of the whole micrograph may give a wrong one. The whole search uses one table of all
tiles against all defoci.

A tile at (x, y) Å from the centre has the defocus Δ + gx x + gy y. The slopes are (gx, gy) = tan(tilt) (-sin axis, cos axis).
The axis is measured from x towards y, and the defocus grows on the side of axis + 90°.

Known limit: the slopes are noisy. On phantoms of 2150 Å whose rings end at 4 Å, their standard deviation is 0.04 along x and
along y, so a flat specimen seems tilted by 2 to 5°. It falls with the square of the field's width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, optimize

from cryopipe.ctf.ctffind.tile_spectra import Tiles
from cryopipe.ctf.defocus import Defocus, Microscope, phase

#: Number of sectors over 180°, as in `fit`. Within one of 10° the defocus varies by at most ± 0.09 (U - V).
_SECTORS = 18
#: Pixels this close to the axes are left out. Tiles are tapered over their whole width, so this is less than in `fit`.
_AXIS_PX = 2
#: Step of the table of defoci (Å). It changes the phase by 0.2 rad at 4 Å and 300 kV. Values in between are interpolated.
_STEP_A = 50.0
#: Smallest defocus of the table (Å). Its first zero is at 2.4 Å at 300 kV, so that there is no ring in the band.
_LEAST_DEFOCUS_A = 300.0
#: Grid of the search: CTFFIND5's steps, to 70° (CTFFIND5 goes to 80°).
_TILTS_DEG = np.arange(0.0, 71.0, 10.0)
_AXES_DEG = np.arange(-180.0, 180.0, 20.0)
#: Number of best grid points that are refined. A choice: more cost time, fewer may miss the best, since axes are 20° apart.
_STARTS = 6


@dataclass(frozen=True)
class Tilt:
    """Slopes of the defocus along x and y (Å per Å) and the mean correlation of the tiles' spectra with |CTF|."""

    slope_x: float
    slope_y: float
    score: float

    @property
    def tilt_deg(self) -> float:
        """Angle between the specimen and the plane of the image, 0 to 90 degrees."""
        return float(np.degrees(np.arctan(np.hypot(self.slope_x, self.slope_y))))

    @property
    def axis_deg(self) -> float:
        """Direction of the tilt axis from x towards y, (-180, 180]: the defocus grows on the side of axis + 90°."""
        angle = float(np.degrees(np.arctan2(-self.slope_x, self.slope_y)))
        return 180.0 if angle <= -180.0 else angle

    def offsets_A(self, tiles: Tiles) -> np.ndarray:
        """Return the defocus of each tile minus that of the centre, Å ``[n]``."""
        result: np.ndarray = self.slope_x * tiles.x_A + self.slope_y * tiles.y_A
        return result


@dataclass(frozen=True)
class Cells:
    """Flattened spectra ``[n, cells]`` in cells of one radius and 10°, with k², cos 2θ, sin 2θ and pixels of each cell."""

    values: np.ndarray
    k2: np.ndarray
    cos2: np.ndarray
    sin2: np.ndarray
    pixels: np.ndarray


def tile_cells(tiles: Tiles, coarse_A: float, fine_A: float) -> Cells:
    """Average the spectrum of each tile over cells of one radius and 10°, and subtract its background."""
    side = tiles.side
    y, x = np.mgrid[0:side, 0 : side // 2]
    y = np.where(y >= side // 2, y - side, y)
    radius = np.rint(np.hypot(x, y)).astype(int)
    unit = 1.0 / (side * tiles.pixel_size_A)
    last = min(int(1.0 / fine_A / unit), side // 2 - 1)
    use = (x > _AXIS_PX) & (np.abs(y) > _AXIS_PX) & (radius <= last)
    x, y, radius = x[use], y[use], radius[use]
    sector = np.minimum(((np.arctan2(y, x) % np.pi) * (_SECTORS / np.pi)).astype(int), _SECTORS - 1)
    flat, size = sector * (last + 1) + radius, _SECTORS * (last + 1)
    count = np.bincount(flat, minlength=size)
    picked = tiles.amplitude[:, :, : side // 2][:, use]
    total = np.stack([np.bincount(flat, weights=row, minlength=size) for row in picked])
    mean = (total / np.maximum(count, 1)).reshape(len(picked), _SECTORS, last + 1)
    share = (count > 0).astype(float).reshape(_SECTORS, last + 1)
    width = 2 * int(side * tiles.pixel_size_A / coarse_A / np.sqrt(2.0)) + 1  # CTFFIND's box-car
    smooth = ndimage.uniform_filter1d(mean, width, axis=2) / np.maximum(
        ndimage.uniform_filter1d(share, width, axis=1), 1e-9
    )
    flattened = (mean / np.maximum(smooth, 1e-9) - 1.0).reshape(len(picked), size)
    means = [
        np.bincount(flat, weights=w, minlength=size) / np.maximum(count, 1)
        for w in (x**2 + y**2, x**2 - y**2, 2 * x * y)
    ]
    keep = (count > 0) & (np.sqrt(means[0]) * unit >= 1.0 / coarse_A)
    r2 = means[0][keep]
    return Cells(flattened[:, keep], r2 * unit**2, means[1][keep] / r2, means[2][keep] / r2, count[keep].astype(float))


def score_table(cells: Cells, defocus: Defocus, microscope: Microscope, defoci_A: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation ``[n, defoci]`` of every tile with |CTF| at every mean defocus.

    Parameters
    ----------
    cells : Cells
        Flattened spectra of the tiles.
    defocus : Defocus
        Only its astigmatism and phase shift are used.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    defoci_A : ndarray ``[defoci]``
        Mean defoci, Å.
    """
    local = defoci_A[None, :] + (defocus.a_A * cells.cos2 + defocus.b_A * cells.sin2)[:, None]
    model = np.abs(np.sin(phase(cells.k2[:, None], local, microscope, defocus.phase_shift_rad)))  # [cells, defoci]
    weights = cells.pixels / cells.pixels.sum()
    model -= weights @ model
    model /= np.sqrt(weights @ model**2)
    values = cells.values - (cells.values @ weights)[:, None]
    values /= np.sqrt(np.maximum(values**2 @ weights, 1e-30))[:, None]
    result: np.ndarray = (values * weights) @ model
    return result


def fit_tilt(
    tiles: Tiles,
    start: Defocus,
    microscope: Microscope,
    *,
    coarse_A: float,
    fine_A: float,
    defocus_range_A: tuple[float, float],
    near: Tilt | None = None,
) -> tuple[Tilt, float]:
    """Fit the slopes and the mean defocus. Astigmatism and phase shift are those of ``start``.

    Parameters
    ----------
    tiles : Tiles
        At least 3 by 3 tiles.
    start : Defocus
        Its mean defocus is used only with ``near``.
    microscope : Microscope
        Voltage, Cs, amplitude contrast.
    coarse_A, fine_A : float
        Band of the fit.
    defocus_range_A : tuple
        Range of mean defoci that is searched.
    near : Tilt, optional
        A tilt to refine. Without it, tilts from 0 to 70° in steps of 10° and axes in steps of 20° are searched.

    Returns
    -------
    tilt : Tilt
    mean_defocus_A : float
        Mean defocus at the centre of the micrograph.
    """
    cells = tile_cells(tiles, coarse_A, fine_A)
    reach = np.hypot(tiles.x_A, tiles.y_A).max()
    last = defocus_range_A[1] + min(reach * np.tan(np.radians(_TILTS_DEG[-1])), 1e4)
    defoci = np.arange(_LEAST_DEFOCUS_A, last, _STEP_A)
    table = score_table(cells, start, microscope, defoci)

    rows = np.arange(len(table))

    def cost(p: np.ndarray) -> float:
        place = (p[2] + p[0] * tiles.x_A + p[1] * tiles.y_A - _LEAST_DEFOCUS_A) / _STEP_A
        low = np.clip(np.floor(place).astype(int), 1, len(defoci) - 3)
        t = place - low
        # Catmull-Rom, because a linear interpolation has its maxima at the nodes
        before, first, second, after = (table[rows, low + i] for i in (-1, 0, 1, 2))
        bend = t * (2 * before - 5 * first + 4 * second - after + t * (3 * (first - second) + after - before))
        values = first + 0.5 * t * (second - before + bend)
        # a tile whose defocus is outside the table (such as beyond focus) does not count
        return -float(np.where((t >= 0) & (t <= 1), values, 0.0).sum()) / len(table)

    if near is not None:
        starts = [np.array([near.slope_x, near.slope_y, start.mean_A])]
    else:
        starts = _grid(table, defoci, tiles, defocus_range_A)
    found = [_simplex(cost, first) for first in starts]
    best, value = min(found, key=lambda f: f[1])
    return Tilt(float(best[0]), float(best[1]), -value), float(best[2])


def _grid(
    table: np.ndarray, defoci: np.ndarray, tiles: Tiles, defocus_range_A: tuple[float, float]
) -> list[np.ndarray]:
    """Return the best points (slopes, mean defocus) of the grid of tilts and axes, best first."""
    inside = np.flatnonzero((defoci >= defocus_range_A[0]) & (defoci <= defocus_range_A[1]))
    first, count = int(inside[0]), len(inside)
    points, scores = [], []
    for tilt in _TILTS_DEG:
        for axis in np.radians(_AXES_DEG if tilt > 0 else _AXES_DEG[:1]):
            slopes = np.tan(np.radians(tilt)) * np.array([-np.sin(axis), np.cos(axis)])
            jumps = np.rint((slopes[0] * tiles.x_A + slopes[1] * tiles.y_A) / _STEP_A).astype(int)
            total = np.zeros(count)
            for row, jump in zip(table, first + jumps, strict=True):
                low, high = max(jump, 0), min(jump + count, len(row))
                if high > low:
                    total[low - jump : high - jump] += row[low:high]
            best = int(np.argmax(total))
            points.append(np.array([*slopes, defoci[first + best]]))
            scores.append(float(total[best]))
    return [points[i] for i in np.argsort(-np.array(scores), kind="stable")[:_STARTS]]


def _simplex(cost: Callable[[np.ndarray], float], first: np.ndarray) -> tuple[np.ndarray, float]:
    simplex = first + np.concatenate([np.zeros((1, 3)), np.diag([0.1, 0.1, 150.0])])
    options = {"initial_simplex": simplex, "xatol": 1e-4, "fatol": 1e-8, "maxfev": 600}
    result = optimize.minimize(cost, first, method="Nelder-Mead", options=options)
    return result.x, float(result.fun)
