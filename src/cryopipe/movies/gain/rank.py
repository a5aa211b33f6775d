"""Gain with which all rows and all columns of a frame have one distribution of grey values (xmipp_movie_estimate_gain).

Sorzano et al. 2018, J. Struct. Biol. 203:90, doi:10.1016/j.jsb.2018.03.012. Each pixel is replaced by the mean
quantile of its rank (the highest among ties) in its column, and likewise in its row. The gain is the ratio of the
summed replacements to the summed frames. Known limit: a gain that differs from pixel to pixel is seen only through
ties of integer counts. With continuous data only its row and column parts are found.
"""

from __future__ import annotations

import numpy as np

from cryopipe.kernels.gain.ranks import add_quantiles, cumulative_counts

#: Integers with more levels than this are sorted instead of counted.
_MOST_LEVELS = 4096


def add_ideal_frame(frame: np.ndarray, total: np.ndarray) -> None:
    """Add the column-wise and the row-wise equalised ``frame`` [y, x], twice the ideal frame, to ``total`` (float64)."""
    if frame.dtype.kind in "iu":
        low = int(frame.min())
        levels = int(frame.max()) - low + 1
        if levels <= _MOST_LEVELS:
            columns, rows = cumulative_counts(frame, low, levels)
            add_quantiles(frame, low, (columns, _quantiles(columns)), (rows, _quantiles(rows)), total)
            return
    total += equalise_columns(frame)
    total += equalise_columns(np.ascontiguousarray(frame.T)).T


def equalise_columns(frame: np.ndarray) -> np.ndarray:
    """Return ``frame`` [y, x] with each value replaced by the mean over columns of the value of that rank."""
    columns = np.ascontiguousarray(frame.T)
    ordered = np.sort(columns, axis=1)
    reference = ordered.mean(axis=0, dtype=np.float64)
    result = np.empty(columns.shape, dtype=np.float64)
    for column, values, out in zip(columns, ordered, result, strict=True):
        out[:] = reference[np.searchsorted(values, column, side="right") - 1]
    return result.T


def _quantiles(counts: np.ndarray) -> np.ndarray:
    """Return the mean over lines of their sorted values above the lowest, from their cumulative ``counts`` [line, level].

    The value of rank r in a line is the number of levels whose cumulative count is at most r.
    """
    length = int(counts[0, -1])
    result: np.ndarray = np.bincount(counts.ravel(), minlength=length + 1)[:length].cumsum() / len(counts)
    return result


def rank_gain(ideal_sum: np.ndarray, frame_sum: np.ndarray) -> np.ndarray:
    """Return the multiplicative gain ideal / (2 · observed) [y, x], mean 1, 1 where nothing was counted; float32."""
    observed = np.abs(frame_sum) >= 1e-6
    gain = np.where(observed, ideal_sum / np.where(observed, 2.0 * frame_sum, 1.0), 1.0)
    return (gain / gain.mean()).astype(np.float32)
