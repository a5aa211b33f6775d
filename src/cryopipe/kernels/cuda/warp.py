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
    coefficients, shifts, spacing, weights, fill, sums
        As in :func:`cryopipe.kernels.cpu.warp.accumulate`; CuPy arrays.
    """
    ny, nx = coefficients.shape
    function("warp", "accumulate")(
        (blocks(ny * nx),), (THREADS,),
        (coefficients, np.int32(ny), np.int32(nx), shifts, np.int32(shifts.shape[1]), np.int32(shifts.shape[2]),
         np.int32(spacing), weights, np.int32(len(weights)), np.float32(fill), sums),
    )  # fmt: skip
