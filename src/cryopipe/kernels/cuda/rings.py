"""Launches of ``rings.cu``; the caller has checked shapes and types."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.kernels.cuda._source import THREADS, function

#: pixels a block adds up; CHUNK in rings.cu
CHUNK = 8192
#: shared memory that every CUDA device gives a block without asking
SHARED_BYTES = 48 * 1024


def _grid(values: Any) -> tuple[int, int]:
    return values.shape[0], (values.shape[1] + CHUNK - 1) // CHUNK


def ring_sums(values: Any, ring: Any, n_rings: int, out: Any) -> None:
    """Fill ``out`` [n, n_rings].

    Parameters
    ----------
    values, ring, n_rings, out
        As in :func:`cryopipe.kernels.cpu.rings.ring_sums`; CuPy arrays.
    """
    size = 8 * n_rings
    shared = size <= SHARED_BYTES
    function("rings", "ring_sums")(
        _grid(values), (THREADS,),
        (values, ring, np.int64(values.shape[1]), np.int32(n_rings), np.int32(shared), out),
        shared_mem=size if shared else 0,
    )  # fmt: skip


def spread_sums(values: Any, position: Any, n_rings: int, sums: Any, weights: Any) -> None:
    """Fill ``sums`` and ``weights`` [n, n_rings].

    Parameters
    ----------
    values, position, n_rings, sums, weights
        As in :func:`cryopipe.kernels.cpu.rings.spread_sums`; CuPy arrays.
    """
    size = 16 * n_rings
    shared = size <= SHARED_BYTES
    function("rings", "spread_sums")(
        _grid(values), (THREADS,),
        (values, position, np.int32(position.shape[0] > 1), np.int64(values.shape[1]), np.int32(n_rings),
         np.int32(shared), sums, weights),
        shared_mem=size if shared else 0,
    )  # fmt: skip
