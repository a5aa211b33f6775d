"""Moved spectra added up, in NumPy and double precision."""

from __future__ import annotations

import numpy as np


def places(ky, kx, starts, lengths):
    """Return (kx, ky, used) of every place in K."""
    size = int((starts + lengths).max())
    x, y, used = np.zeros(size), np.zeros(size), np.zeros(size, bool)
    for j, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        x[start : start + length], y[start : start + length] = kx[:length], ky[j]
        used[start : start + length] = True
    return x, y, used


def moved(values, shifts, ky, kx, starts, lengths):
    x, y, used = places(ky, kx, starts, lengths)
    turns = shifts[:, :1] * x + shifts[:, 1:] * y
    return values[:, : len(x)] * np.exp(-2j * np.pi * turns) * used


def coherent_sum(values, shifts, ky, kx, starts, lengths):
    return moved(values, shifts, ky, kx, starts, lengths).sum(axis=0)


def power(values, weights, shifts, ky, kx, starts, lengths):
    total = coherent_sum(values, shifts, ky, kx, starts, lengths)
    return float((weights[: len(total)] * np.abs(total) ** 2).sum())
