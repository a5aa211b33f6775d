"""Divide numerator by weight, and bridge the gaps between slices with what lies a voxel about.

Few slices leave voxels that hardly any of them reach. Their quotient is one image's noise, and in a map without symmetry
there are enough of them to bury the signal on which all their neighbours agree. A particle in its box is sampled twice
too finely at padding 2, so that the neighbours know nearly all about such a voxel. With W and N the weight and numerator
smoothed by [1 2 1]/4 along each axis, a voxel of weight w < W/2 takes the share q = (W/2 - w)/W of its surroundings:

    (n + q N) / (w + q W + regulariser)

so that nothing counts less than half of what lies about it. Where slices are dense nothing changes. The surroundings,
not the shell, are the measure: an empty cone stays empty. A conjugate-gradient solution of the whole least-squares
problem inside the particle's sphere is hardly better: 400 noisy particles of 186 Å without symmetry give 4.54 Å by it,
4.53 Å here and 6.02 Å by bare quotients (FSC 0.5 against truth).

References: Scheres 2012, doi:10.1016/j.jsb.2012.09.006 (iterative gridding, which smooths weights to the same end).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.imaging.backend import array_module
from cryopipe.kernels.volumes import division
from cryopipe.reconstruction.shells import shell_numbers

LEAST_SHARE = 0.5
"""Least weight of a voxel as a share of the smoothed weight about it.

0.2, 0.35, 0.5, 0.7 and 1 give 4.60, 4.56, 4.53, 4.52 and 4.50 Å on the particles above; from 0.7 on, maps of noise-free
images lose (FSC 0.9990 and 0.9985 where it is 0.9994 otherwise).
"""


def divided_rows(
    numerator: Any, weight: Any, part: slice, floor: np.ndarray, regulariser: np.ndarray, padding: int
) -> Any:
    """Return rows ``part`` of (n + q N) / (max(w + q W, floor) + regulariser).

    Parameters
    ----------
    numerator : complex64 [2R+1, 2R+1, R+1]
        Half cube; beyond its edge it counts as zero, at kx = -1 it is the Friedel mate of kx = 1.
    weight : float32 [2R+1, 2R+1, R+1]
    part : slice
        Rows ky of the half cube.
    floor, regulariser : float32 [radius + 1]
        By shell.
    padding : int

    Returns
    -------
    complex64 [2R+1, part, R+1]
        Zero beyond the last shell and where the divisor is zero.
    """
    xp = array_module(numerator, weight)
    if xp is np:
        return division.divide(numerator, weight, part, floor, regulariser, padding=padding, least_share=LEAST_SHARE)
    floor, regulariser = xp.asarray(floor), xp.asarray(regulariser)
    share, about = _share_of_neighbours(weight, part)
    shell = shell_numbers(weight, part, padding)
    within = xp.minimum(shell, len(floor) - 1)
    total = xp.maximum(weight[:, part] + share * about, floor[within]) + regulariser[within]
    usable = (shell < len(floor)) & (total > 0)
    value = numerator[:, part] + share * _smooth(numerator, part)
    return xp.where(usable, value / xp.where(usable, total, 1), 0).astype(np.complex64)


def _share_of_neighbours(weight: Any, part: slice) -> tuple[Any, Any]:
    """Return q and W of rows ``part``."""
    xp = array_module(weight)
    about = _smooth(weight, part)
    missing = xp.maximum(np.float32(LEAST_SHARE) * about - weight[:, part], np.float32(0))
    return missing / xp.where(about > 0, about, 1), about


def _smooth(cube: Any, part: slice) -> Any:
    """Return rows ``part`` of a half cube smoothed along all axes, by array operations."""
    xp = array_module(cube)
    depth, height, width = cube.shape
    first, last = max(part.start - 1, 0), min(part.stop + 1, height)
    rows = xp.zeros((depth + 2, part.stop - part.start + 2, width + 2), cube.dtype)
    at = first - part.start + 1
    there = slice(at, at + last - first)
    rows[1:-1, there, 1:-1] = cube[:, first:last]
    rows[1:-1, there, 0] = cube[::-1, ::-1, 1][:, first:last].conj()
    for axis in range(3):
        before, here, after = (
            tuple(slice(start, rows.shape[axis] - 2 + start) if a == axis else slice(None) for a in range(3))
            for start in (0, 1, 2)
        )
        rows = np.float32(0.25) * (rows[before] + rows[after]) + np.float32(0.5) * rows[here]
    return rows
