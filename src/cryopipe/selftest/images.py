"""Checks of the kernels that work on images, spectra and movie frames."""

from __future__ import annotations

import numpy as np

from cryopipe.kernels import coherence, peaks, rings, warp
from cryopipe.kernels.ctf_values import ctf_values
from cryopipe.selftest.row import Check, Mover, host


def _ring_error(move: Mover) -> float:
    rng = np.random.default_rng(2)
    values, ring = rng.standard_normal(100_000).astype(np.float32), rng.integers(0, 128, 100_000)
    expected = np.bincount(ring, weights=values.astype(np.float64), minlength=128)
    return float(np.abs(host(rings.ring_sums(move(values), move(ring), 128)) - expected).max())


def _equiphase_error(move: Mover) -> float:
    """Check that splitting a value between two rings keeps its sum and its centre."""
    position = np.random.default_rng(3).uniform(0, 126, 100_000).astype(np.float32)
    mean, weight = (
        host(a) for a in rings.equiphase_average(move(np.ones(position.size, np.float32)), move(position), 128)
    )
    centre = (weight * np.arange(128)).sum() / position.sum(dtype=np.float64)
    return float(max(np.abs(mean[weight > 0] - 1).max(), abs(centre - 1), abs(weight.sum() / position.size - 1)))


def _ctf_values_error(move: Mover) -> float:
    rng = np.random.default_rng(7)
    kx, ky = rng.uniform(-0.25, 0.25, (2, 20_000))
    coefficients = np.array([[0.1, 900.0, 30.0, -20.0, -160.0], [0.0, 300.0, -5.0, 9.0, -160.0]])
    scale, b_factor = np.array([1.0, 0.5]), np.array([0.0, 30.0])
    k2 = kx**2 + ky**2
    terms = np.stack([np.ones_like(k2), k2, kx**2 - ky**2, 2 * kx * ky, k2**2])
    expected = scale[:, None] * np.exp(-b_factor[:, None] * k2 / 4) * np.sin(coefficients @ terms)
    return float(np.abs(host(ctf_values(coefficients, scale, b_factor, move(kx), move(ky))) - expected).max())


def _peaks_error(move: Mover) -> float:
    """Count mistakes: impulses must be found in their order, without the lower one of each close pair."""
    response = np.zeros((200, 220), np.float32)
    y, x = (a.ravel() for a in np.mgrid[10:190:20, 10:210:20])
    height = 1 + np.random.default_rng(5).permutation(y.size).astype(np.float32)
    response[y, x] = height
    response[y + 4, x] = 0.5
    got_y, got_x, _ = peaks.find_peaks(move(response), 8.0, threshold=0.1)
    order = np.argsort(-height)
    got = list(zip(host(got_y).tolist(), host(got_x).tolist(), strict=True))
    expected = list(zip(y[order].tolist(), x[order].tolist(), strict=True))
    return float(sum(a != b for a, b in zip(got, expected, strict=False)) + abs(len(got) - len(expected)))


def _warp_error(move: Mover) -> float:
    """Shift a ramp by a field that is linear in x. Cubic splines are exact for it, away from the mirrored borders."""
    y, x = np.mgrid[:96, :80].astype(np.float64)
    slope_x, slope_y, spacing = 0.03, -0.02, 16
    frame = move((slope_x * x + slope_y * y).astype(np.float32))
    nodes = np.arange(warp.node_count(80, spacing)) * spacing
    field = np.zeros((2, warp.node_count(96, spacing), len(nodes)), np.float32)
    field[0], field[1] = 0.37 + 0.01 * nodes, -0.61
    sums = move(np.zeros((2, 96, 80), np.float32))
    warp.spline_coefficients(frame)
    warp.warp_accumulate(frame, move(field), spacing, move(np.array([1.0, 0.5], np.float32)), sums, fill=0.0)
    expected = slope_x * (x - 0.37 - 0.01 * x) + slope_y * (y + 0.61)
    error = np.abs(host(sums) - expected * np.array([1.0, 0.5])[:, None, None])[:, 16:-16, 16:-16]
    return float(error.max() / np.abs(expected).max())


def _coherence_error(move: Mover) -> float:
    """Compare sum and gradient with their definitions, on one row of frequencies."""
    rng = np.random.default_rng(8)
    n, kx = 5, np.arange(200) / 400.0
    values = (rng.standard_normal((n, 200)) + 1j * rng.standard_normal((n, 200))).astype(np.complex64)
    shifts, weights, ky = rng.uniform(-3, 3, (n, 2)), rng.random(200).astype(np.float32), 0.1
    rows = (np.array([ky]), kx, np.zeros(1, np.int64), np.full(1, 200))
    moved = values * np.exp(-2j * np.pi * (shifts[:, :1] * kx + shifts[:, 1:] * ky))
    total = moved.sum(axis=0)
    slope = weights * (np.conj(total) * moved).imag
    gradients = 4 * np.pi * np.stack([slope @ kx, slope.sum(axis=1) * ky], axis=1)
    found = coherence.coherent_sum(values, shifts, *rows)
    found_gradients = coherence.shift_gradients(values, found, weights, shifts, *rows)
    errors = (
        np.abs(found - total).max() / np.abs(total).max(),
        np.abs(found_gradients - gradients).max() / np.abs(gradients).max(),
    )
    return float(max(errors))


CHECKS = (
    Check("rings", "radial sums", _ring_error, 1e-10),
    Check("rings", "equiphase averages", _equiphase_error, 1e-10),
    Check("ctf_values", "CTFs", _ctf_values_error, 1e-5),
    Check("peaks", "impulses", _peaks_error, 0.0),
    Check("warp", "a ramp moved by a ramp", _warp_error, 1e-5),
    Check("coherence", "sum and gradients", _coherence_error, 1e-5, on_gpu=False),
)
