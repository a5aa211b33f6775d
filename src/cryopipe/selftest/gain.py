"""Checks of the kernels that a camera's gain is estimated with."""

from __future__ import annotations

import numpy as np

from cryopipe.kernels.gain import blocks, ranks
from cryopipe.selftest.row import Check, Mover


def _blocks_error(move: Mover) -> float:
    """Compare with sums of slices, and values between the centres of blocks with the ramp that the centres lie on."""
    rng, step, shape = np.random.default_rng(41), 5, (23, 31)
    image, good = rng.random(shape).astype(np.float32), rng.random(shape) > 0.2
    starts = [np.arange(0, side, step) for side in shape]
    expected = [
        np.add.reduceat(np.add.reduceat(a, starts[0], axis=0), starts[1], axis=1)
        for a in (np.where(good, image, 0).astype(np.float64), good.astype(np.float64))
    ]
    found = blocks.block_sums(image, good, step)
    y, x = ((np.arange(side) + 0.5) / step - 0.5 for side in shape)
    v, u = np.meshgrid(np.arange(5), np.arange(7), indexing="ij")
    ramp = blocks.interpolate((1 + 0.2 * v - 0.1 * u).astype(np.float32), shape, step)
    errors = [np.abs(a - b).max() / step**2 for a, b in zip(found, expected, strict=True)]
    return float(max(*errors, np.abs(ramp - (1 + 0.2 * y.clip(0, 4)[:, None] - 0.1 * x.clip(0, 6))).max()))


def _ranks_error(move: Mover) -> float:
    """Compare with comparisons of each value with every level, and of each rank with its quantile."""
    rng, low, levels = np.random.default_rng(42), -3, 9
    frame = rng.integers(low, low + levels, (20, 14)).astype(np.int16)
    at_most = frame[:, :, None] <= low + np.arange(levels)
    columns, rows = at_most.sum(axis=0), at_most.sum(axis=1)
    found = ranks.cumulative_counts(frame, low, levels)
    by_column, by_row, total = rng.random(20), rng.random(14), np.ones(frame.shape)
    ranks.add_quantiles(frame, low, (found[0], by_column), (found[1], by_row), total)
    y, x = np.indices(frame.shape)
    expected = 1 + 2 * low + by_column[columns[x, frame - low] - 1] + by_row[rows[y, frame - low] - 1]
    return float(max(np.abs(found[0] - columns).max(), np.abs(found[1] - rows).max(), np.abs(total - expected).max()))


CHECKS = (
    Check("gain.blocks", "sums and values between", _blocks_error, 1e-5, on_gpu=False),
    Check("gain.ranks", "counts and quantiles", _ranks_error, 1e-10, on_gpu=False),
)
