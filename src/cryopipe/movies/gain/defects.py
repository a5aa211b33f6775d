"""Defective pixels: they are found in the summed frames, and replaced in every frame by good neighbours.

A random good neighbour, unlike the mean of all, keeps the variance of the noise, so a repaired pixel is not a quiet
spot (as in RELION's motion correction and MotionCor2).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import pdtr

from cryopipe.errors import InputError
from cryopipe.io.atomic import atomic_write
from cryopipe.movies.gain.flat_field import deviations, robust_center_and_sd

_WINDOW = 2  # 5 x 5 pixels, as in RELION's motion correction
#: Least number of good neighbours from which one is drawn: RELION asks for more than 6 (NUM_MIN_OK in motioncorr_runner).
_ENOUGH_NEIGHBOURS = 7
#: Probability that a good pixel has a count as low as that of a cold one. A camera has 10⁷ to 10⁸ pixels, so less than one is
#: called cold by chance.
_CHANCE = 1e-9


def find_defects(
    total: np.ndarray, expected: np.ndarray, gain: np.ndarray, *, hot_sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Find dead and hot pixels.

    Parameters
    ----------
    total : ndarray ``[y, x]``
        Sum of frames, without the gain.
    expected : ndarray ``[y, x]``
        Sum that the surroundings of each pixel and its gain predict.
    gain : ndarray ``[y, x]``
        Multiplicative gain; zeros are dead pixels.
    hot_sigma : float
        Limit in robust standard deviations of √total - √expected.

    Returns
    -------
    dead, hot : ndarray ``[y, x]`` bool
        Dead pixels include those whose sum is not finite, and cold ones. A cold pixel is ``hot_sigma`` below its
        surroundings, below half of them, and has so few counts as chance gives once in 10⁹ pixels. With less than about
        21 counts per pixel a dark one may be chance. Then only zeros of the gain are dead.
    """
    dead = (gain == 0) | ~np.isfinite(total)
    found = deviations(total, expected)
    live = ~dead
    for _ in range(2):
        center, sd = robust_center_and_sd(found[live])
        live = ~dead & (np.abs(found - center) <= hot_sigma * sd)
    hot = ~dead & (found > center + hot_sigma * sd)
    cold = np.flatnonzero(~dead & (found < center - hot_sigma * sd) & (total < expected / 2))
    # the standard deviation of √counts is 1/2, so 4 sd² is one electron in the units of the sum (more with a pattern)
    electron = 4.0 * sd**2
    cold = cold[pdtr(np.floor(total.flat[cold] / electron), expected.flat[cold] / electron) < _CHANCE]
    dead.flat[cold] = True
    return dead, hot


def write_defects(path: Path, dead: np.ndarray, hot: np.ndarray) -> None:
    """Write a TSV with header ``x  y  type`` (zero-based pixels of the decoded frame, x fast)."""
    lines = ["x\ty\ttype"]
    for mask, kind in ((dead, "dead"), (hot, "hot")):
        lines += [f"{x}\t{y}\t{kind}" for y, x in np.argwhere(mask).tolist()]
    atomic_write(path, "\n".join(lines) + "\n")


def read_defects(path: Path) -> np.ndarray:
    """Return the pixels of a defect list as int64 ``[n, 2]`` (y, x)."""
    table = pd.read_csv(path, sep="\t")
    if list(table.columns) != ["x", "y", "type"]:
        raise InputError(
            f"{path}: a list of defects has the columns x, y, type, but this file has {', '.join(table.columns)}. Run "
            "estimate_gain again."
        )
    return table[["y", "x"]].to_numpy(dtype=np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class DefectRepair:
    """What is needed to repair frames: flat indices of the defects and of their good neighbours.

    Attributes
    ----------
    pixels : ndarray ``[d]`` int64
        Flat indices of the defects.
    neighbours : ndarray ``[d, 24]`` int64
        Flat indices of good pixels in the 5 x 5 window. The first ``counts`` of each row are valid.
    counts : ndarray ``[d]`` int64
        Number of good neighbours. If it is below 7, the pixel is drawn from N(frame mean, frame deviation).
    """

    pixels: np.ndarray
    neighbours: np.ndarray
    counts: np.ndarray

    def apply(self, frame: np.ndarray, rng: np.random.Generator) -> None:
        """Replace the defects of ``frame`` [y, x] float32, contiguous, in place."""
        if not len(self.pixels):
            return
        flat = frame.reshape(-1)
        uniform = rng.random(len(self.pixels))
        normal = rng.standard_normal(len(self.pixels))
        surrounded = self.counts >= _ENOUGH_NEIGHBOURS
        choice = (uniform * self.counts).astype(np.int64)
        chosen = np.take_along_axis(self.neighbours, choice[:, None], axis=1)[:, 0]
        values = flat[chosen]
        if not surrounded.all():
            good = np.ones(flat.shape, dtype=bool)
            good[self.pixels] = False
            sample = flat[good]
            values = np.where(surrounded, values, sample.mean(dtype=np.float64) + sample.std(dtype=np.float64) * normal)
        flat[self.pixels] = values


def plan_repair(defects_yx: np.ndarray, shape: tuple[int, int]) -> DefectRepair:
    """Find the good neighbours of ``defects_yx`` [d, 2] in frames of ``shape`` (y, x).

    Raises
    ------
    InputError
        A defect is outside the frame, so the list belongs to another camera or orientation.
    """
    ny, nx = shape
    if len(defects_yx) and ((defects_yx < 0) | (defects_yx >= np.array(shape))).any():
        worst = defects_yx[((defects_yx < 0) | (defects_yx >= np.array(shape))).any(axis=1)][0]
        raise InputError(
            f"the defect at x {worst[1]}, y {worst[0]} is outside the frame of {nx} x {ny} pixels. Use the list of this "
            "camera."
        )
    bad = np.zeros(shape, dtype=bool)
    bad[tuple(defects_yx.T)] = True
    steps = [(dy, dx) for dy in range(-_WINDOW, _WINDOW + 1) for dx in range(-_WINDOW, _WINDOW + 1) if dy or dx]
    around = defects_yx[:, None, :] + np.array(steps)  # [d, 24, 2]
    inside = ((around >= 0) & (around < np.array(shape))).all(axis=2)
    y, x = (np.where(inside, around[..., axis], 0) for axis in (0, 1))
    usable = inside & ~bad[y, x]
    order = np.argsort(~usable, axis=1, kind="stable")
    return DefectRepair(
        pixels=defects_yx[:, 0] * nx + defects_yx[:, 1],
        neighbours=np.take_along_axis(y * nx + x, order, axis=1),
        counts=usable.sum(axis=1),
    )
