"""Ring sums, pixel by pixel."""

from __future__ import annotations

import numpy as np


def ring_sums(values, ring, n_rings):
    out = np.zeros((*values.shape[:-1], n_rings))
    for k, r in enumerate(ring):
        if 0 <= r < n_rings:
            out[..., r] += values[..., k].astype(np.float64)
    return out


def ring_means(values, ring, n_rings):
    count = np.array([np.sum(ring == r) for r in range(n_rings)])
    return ring_sums(values, ring, n_rings) / np.maximum(count, 1)


def equiphase_average(values, position, n_rings):
    sums, weights = np.zeros((*values.shape[:-1], n_rings)), np.zeros((*values.shape[:-1], n_rings))
    positions = np.broadcast_to(position, values.shape)
    ring = np.arange(n_rings)
    for index in np.ndindex(values.shape):
        at = float(positions[index])
        if 0 <= at < n_rings:
            share = np.maximum(0, 1 - np.abs(at - ring))
            sums[index[:-1]] += share * float(values[index])
            weights[index[:-1]] += share
    return np.where(weights > 0, sums / np.where(weights > 0, weights, 1), 0), weights
