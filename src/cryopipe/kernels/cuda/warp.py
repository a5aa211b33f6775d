"""Launch of ``warp.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.kernels.cuda._source import THREADS, blocks, function


def spline_coefficients(image: Any) -> None:
    """Replace ``image`` [y, x] by its spline coefficients."""
    ny, nx = image.shape
    # along x, then along y, as on the CPU
    for lines, n, pitch, step in ((ny, nx, nx, 1), (nx, ny, 1, nx)):
        function("warp", "filter_lines")(
            (blocks(lines),), (THREADS,), (image, np.int32(lines), np.int32(n), np.int64(pitch), np.int64(step))
        )


def accumulate(coefficients: Any, shifts: Any, spacing: int, weights: Any, fill: float, sums: Any) -> None:
    """Add the warped frame, times each weight, to ``sums`` [r, y, x].

    Parameters
    ----------
    coefficients : float32 [y, x]
        Cubic B-spline coefficients of the frame.
    shifts : float32 [2, gy, gx]
        (x, y) at nodes ``spacing`` pixels apart.
    spacing : int
        Pixels between nodes.
    weights : float32 [r]
        Factor of the frame in each sum.
    fill : float
        Value of pixels that come from outside the frame.
    sums : float32 [r, y, x]
        Receive the weighted frame.
    """
    ny, nx = coefficients.shape
    function("warp", "accumulate")(
        (blocks(ny * nx),), (THREADS,),
        (coefficients, np.int32(ny), np.int32(nx), shifts, np.int32(shifts.shape[1]), np.int32(shifts.shape[2]),
         np.int32(spacing), weights, np.int32(len(weights)), np.float32(fill), sums),
    )  # fmt: skip
