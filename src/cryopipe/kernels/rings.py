"""Averages over rings of Fourier space: whole rings (radial averages) and fractional ones (equiphase averages).

An equiphase average assigns every pixel of an astigmatic spectrum to the ring at which a spectrum without astigmatism
would have the same CTF phase, so that Thon rings are not smeared [1]_. The caller computes the positions from the phase,
because kernels do not know the optics. The value of a pixel is split linearly between the two nearest rings.

References
----------
.. [1] K. Zhang, Gctf: real-time CTF determination and correction, J. Struct. Biol. 193 (2016) 1-12,
   doi:10.1016/j.jsb.2015.11.003.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.kernels._dispatch import Array, backend_of, check, contiguous, library


def ring_sums(values: Array, ring: Array, n_rings: int) -> Array:
    """Return the sum of ``values`` over each ring.

    Parameters
    ----------
    values : float32 [K] or [n, K]
    ring : integer [K]
        Ring of each pixel. A pixel with a ring outside 0 .. n_rings - 1 is left out.
    n_rings : int

    Returns
    -------
    float64 [n_rings] or [n, n_rings]

    Raises
    ------
    TypeError
        Wrong dtype, or NumPy and CuPy arrays mixed.
    ValueError
        Wrong shape, or n_rings < 1.
    """
    backend = backend_of(values=values, ring=ring)
    rows = _rows(values, n_rings)
    if ring.dtype.kind not in "iu":
        raise TypeError(f"ring must be integer, not {ring.dtype.name}.")
    if tuple(ring.shape) != (rows.shape[1],):
        raise ValueError(f"ring must have shape ({rows.shape[1]},), not {tuple(ring.shape)}.")
    out = library(backend).zeros((rows.shape[0], n_rings))
    if rows.size:
        _implementation(backend).ring_sums(rows, contiguous(ring, np.int32), n_rings, out)
    return out[0] if values.ndim == 1 else out


def ring_means(values: Array, ring: Array, n_rings: int) -> Array:
    """Return the mean of ``values`` over each ring, or 0 for a ring without pixels. Arguments as in :func:`ring_sums`."""
    xp = library(backend_of(values=values, ring=ring))
    count = ring_sums(xp.ones(ring.shape, dtype=np.float32), ring, n_rings)
    return ring_sums(values, ring, n_rings) / xp.maximum(count, 1)


def equiphase_average(values: Array, position: Array, n_rings: int) -> tuple[Array, Array]:
    """Return averages over fractional rings, and their weights.

    Parameters
    ----------
    values : float32 [K] or [n, K]
    position : float32 [K] or [n, K]
        Fractional ring of each pixel, one list for all images or one for each. A pixel outside [0, n_rings) (or NaN) is
        left out. Between the last ring and n_rings the share beyond the last ring is dropped.
    n_rings : int

    Returns
    -------
    mean : float64 [n_rings] or [n, n_rings]
        0 for a ring without pixels.
    weight : float64, same shape
        Sum of the shares.

    Raises
    ------
    TypeError
        Wrong dtype, or NumPy and CuPy arrays mixed.
    ValueError
        Wrong shape, or n_rings < 1.
    """
    backend = backend_of(values=values, position=position)
    rows = _rows(values, n_rings)
    check("position", position, np.float32, tuple(values.shape) if position.ndim == 2 else (rows.shape[1],))
    xp = library(backend)
    sums, weights = xp.zeros((rows.shape[0], n_rings)), xp.zeros((rows.shape[0], n_rings))
    if rows.size:
        positions = contiguous(position, np.float32).reshape(-1, rows.shape[1])
        _implementation(backend).spread_sums(rows, positions, n_rings, sums, weights)
    mean = xp.where(weights > 0, sums / xp.where(weights > 0, weights, 1), 0)
    return (mean[0], weights[0]) if values.ndim == 1 else (mean, weights)


def _rows(values: Array, n_rings: int) -> Array:
    check("values", values, np.float32, (None,) * (2 if values.ndim == 2 else 1))
    if n_rings < 1:
        raise ValueError(f"n_rings must be at least 1, not {n_rings}.")
    return contiguous(values, np.float32).reshape(-1, values.shape[-1])


def _implementation(backend: str) -> Any:
    if backend == "cuda":
        from cryopipe.kernels.cuda import rings as cuda

        return cuda
    from cryopipe.kernels.cpu import rings as cpu

    return cpu
