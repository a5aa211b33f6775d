"""Gain by making all rows and all columns of a frame share one distribution of grey values (xmipp_movie_estimate_gain).

Sorzano et al. 2018, J. Struct. Biol. 203:90, doi:10.1016/j.jsb.2018.03.012. Each pixel is replaced by the mean
quantile that belongs to its rank (the highest among ties) in its column, and likewise in its row; the gain is the
ratio of the summed replacements to the summed frames. Known limit: a gain that differs from pixel to pixel is seen
only through ties of integer counts; with continuous data only its row and column parts are found.
"""

from __future__ import annotations

import numpy as np


def equalise_columns(frame: np.ndarray) -> np.ndarray:
    """Return ``frame`` [y, x] with each value replaced by the columns' mean quantile of its rank in its column."""
    ordered = np.sort(frame, axis=0)
    reference = ordered.mean(axis=1, dtype=np.float64)
    result = np.empty(frame.shape, dtype=np.float64)
    for x in range(frame.shape[1]):
        rank = np.searchsorted(ordered[:, x], frame[:, x], side="right") - 1
        result[:, x] = reference[rank]
    return result


def ideal_frame(frame: np.ndarray) -> np.ndarray:
    """Return the sum of the column-wise and the row-wise equalised ``frame`` [y, x]: twice the ideal frame, float64."""
    return equalise_columns(frame) + equalise_columns(np.ascontiguousarray(frame.T)).T


def rank_gain(ideal_sum: np.ndarray, frame_sum: np.ndarray) -> np.ndarray:
    """Return the multiplicative gain ideal / (2 · observed) [y, x], mean 1, 1 where nothing was counted; float32."""
    observed = np.abs(frame_sum) >= 1e-6
    gain = np.where(observed, ideal_sum / np.where(observed, 2.0 * frame_sum, 1.0), 1.0)
    return (gain / gain.mean()).astype(np.float32)
