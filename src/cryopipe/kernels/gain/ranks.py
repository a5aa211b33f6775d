"""Ranks of integers in their columns and rows, by counting instead of sorting."""

from __future__ import annotations

import numpy as np

from cryopipe.kernels._dispatch import check, check_on_cpu
from cryopipe.kernels.cpu.gain import ranks as cpu


def cumulative_counts(frame: np.ndarray, low: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each column and each row of ``frame`` how many values are at most ``low`` + 0, 1, 2 ...

    ``frame`` ``[y, x]`` has integers from ``low`` to ``low + levels - 1``. The counts are int32 ``[x, levels]`` and
    ``[y, levels]``.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, or an array of the GPU.
    """
    _check(frame)
    columns, rows = cpu.cumulative_counts(frame, low, levels)
    return columns, rows


def add_quantiles(
    frame: np.ndarray,
    low: int,
    columns: tuple[np.ndarray, np.ndarray],
    rows: tuple[np.ndarray, np.ndarray],
    total: np.ndarray,
) -> None:
    """Add to ``total`` the quantiles of each pixel's ranks (the highest among ties) in its column and its row.

    Parameters
    ----------
    frame : integer [y, x]
    low : int
        Its lowest value.
    columns, rows : (int32 [lines, levels], float64 [ranks])
        Counts of :func:`cumulative_counts`, and the quantile above ``low`` of each rank.
    total : float64 [y, x]
        Receives the sum of both.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, or an array of the GPU.
    """
    _check(frame)
    for name, (counts, quantiles), lines in (("columns", columns, frame.shape[1]), ("rows", rows, frame.shape[0])):
        check(name, counts, np.int32, (lines, None))
        check(f"quantiles of {name}", quantiles, np.float64, (None,))
    check("total", total, np.float64, frame.shape)
    cpu.add_quantiles(frame, low, *columns, *rows, total)


def _check(frame: np.ndarray) -> None:
    check_on_cpu(frame=frame)
    if frame.dtype.kind not in "iu" or frame.ndim != 2:
        raise TypeError(f"frame must be integers [y, x], not {frame.dtype.name} of shape {frame.shape}.")
