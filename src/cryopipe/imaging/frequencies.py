"""Frequencies and shells of half spectra, and sums over shells of the full transform.

A half spectrum is the part that a real transform keeps: on the last axis the frequencies from zero up,
``[..., x // 2 + 1]``. A shell is one Fourier pixel wide: ``round(|k|)``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from cryopipe.imaging.backend import array_module, to_numpy


def frequency_grid(shape: Sequence[int], pixel_size_A: float = 1.0) -> tuple[np.ndarray, ...]:
    """Return the signed frequencies of a half spectrum, the fastest axis first: ``(kx, ky)`` or ``(kx, ky, kz)``.

    Parameters
    ----------
    shape : sequence of int
        Shape of the real image ``(y, x)`` or volume ``(z, y, x)``.
    pixel_size_A : float
        Å per pixel. With 1 the frequencies are in cycles per pixel.

    Returns
    -------
    tuple of ndarray
        float64, in 1/Å, each of the shape of the half spectrum. They are read-only views that take no memory. ``kx`` is
        never negative.
    """
    axes = [np.fft.fftfreq(n, pixel_size_A) for n in shape[:-1]] + [np.fft.rfftfreq(shape[-1], pixel_size_A)]
    half = tuple(len(axis) for axis in axes)
    grids = []
    for position, axis in enumerate(axes):
        column = [1] * len(half)
        column[position] = -1
        grids.append(np.broadcast_to(axis.reshape(column), half))
    return tuple(reversed(grids))


def radial_frequency(shape: Sequence[int], pixel_size_A: float = 1.0) -> np.ndarray:
    """Return the length of the frequency vector at every pixel of the half spectrum: float32, 1/Å."""
    squared = functools.reduce(np.add, (np.square(k.astype(np.float32)) for k in frequency_grid(shape, pixel_size_A)))
    return np.sqrt(squared)


@functools.lru_cache(maxsize=4)
def shell_index(shape: tuple[int, ...]) -> np.ndarray:
    """Return the shell ``round(|k|)`` in Fourier pixels of the half spectrum's pixels: int32, read-only, cached.

    For unequal sides |k| is measured in units of the longest side's Fourier pixel.
    """
    longest = max(shape)
    squared = functools.reduce(np.add, (np.square(k * longest) for k in frequency_grid(shape)))
    shells = np.rint(np.sqrt(squared)).astype(np.int32)
    shells.setflags(write=False)
    return shells


@functools.lru_cache(maxsize=16)
def friedel_weight(shape: tuple[int, ...]) -> np.ndarray:
    """Return how often each column of the half spectrum occurs in the full one, 1 or 2, float64 ``[x // 2 + 1]``."""
    weight = np.full(shape[-1] // 2 + 1, 2.0)
    weight[0] = 1.0
    if shape[-1] % 2 == 0:
        weight[-1] = 1.0
    weight.setflags(write=False)
    return weight


def shell_sum(values: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Sum a real quantity of a half spectrum over the shells of the full one.

    Parameters
    ----------
    values : array
        Values of the half spectrum, equal at k and -k. NumPy or CuPy.
    shape : tuple of int
        Shape of the real image or volume.

    Returns
    -------
    float64 ``[max(shape) // 2 + 1]``
        NumPy. Corners beyond the last shell are left out.
    """
    count = max(shape) // 2 + 1
    xp = array_module(values)
    weighted = values * xp.asarray(friedel_weight(shape), dtype=values.dtype)
    shells = xp.asarray(shell_index(shape))
    return to_numpy(xp.bincount(shells.ravel(), weights=weighted.ravel(), minlength=count))[:count].astype(np.float64)


def shell_mean(values: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return the mean of a real quantity over every shell. The arguments are those of :func:`shell_sum`."""
    return shell_sum(values, shape) / _shell_count(shape)


@functools.lru_cache(maxsize=16)
def _shell_count(shape: tuple[int, ...]) -> np.ndarray:
    """Return the number of pixels of the full transform in every shell (at least 1, for divisions)."""
    half = (*shape[:-1], shape[-1] // 2 + 1)
    return np.maximum(shell_sum(np.ones(half, dtype=np.float32), shape), 1.0)
