"""Warp of a frame by a smooth field of shifts, added to several sums at once. It is the inner loop of movie averages.

The frame is interpolated by cubic B-splines (prefilter, then 4 x 4 taps) [1]_. Each sum has its own weight for the frame.
Plain and exposure-weighted averages therefore need only one interpolation.

References
----------
.. [1] M. Unser, Splines: a perfect fit for signal and image processing, IEEE Signal Process. Mag. 16 (1999) 22,
   doi:10.1109/79.799930.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cryopipe.kernels._dispatch import Array, backend_of, check
from cryopipe.kernels.cpu import warp as cpu


def node_count(length: int, spacing: int) -> int:
    """Return the number of nodes, ``spacing`` pixels apart from pixel 0, that cover ``length`` pixels, plus one."""
    return (length - 1) // spacing + 2


def spline_coefficients(image: Array, *, threads: int = 1) -> None:
    """Replace ``image`` by the coefficients of its cubic B-spline, in place. It is mirrored at its borders.

    Parameters
    ----------
    image : float32 [y, x]
        At least 2 x 2 pixels.
    threads : int
        CPU threads. The result does not depend on them.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape.
    """
    backend = backend_of(image=image)
    check("image", image, np.float32, (None, None))
    if min(image.shape) < 2:
        raise ValueError(f"image must have at least 2 x 2 pixels, not {image.shape}.")
    if not image.flags.c_contiguous:
        raise ValueError("image must be in C order, because it is changed in place.")
    if backend == "cuda":
        from cryopipe.kernels.cuda import warp as cuda

        cuda.spline_coefficients(image)
        return
    _in_parts(image.shape[0], threads, lambda a, b: cpu.filter_rows(image, a, b))
    _in_parts(image.shape[1], threads, lambda a, b: cpu.filter_columns(image, a, b))


def warp_accumulate(
    coefficients: Array, shifts: Array, spacing: int, weights: Array, sums: Array, *, fill: float, threads: int = 1
) -> None:
    """Add ``weights[r] * warped`` to every ``sums[r]``, where warped(x) = frame(x - shift(x)).

    Parameters
    ----------
    coefficients : float32 [y, x]
        Result of :func:`spline_coefficients`.
    shifts : float32 [2, gy, gx]
        (x, y) shift to apply, in pixels, at nodes ``spacing`` pixels apart (:func:`node_count`), linear between them.
    spacing : int
        Pixels between nodes.
    weights : float32 [r]
        Weight of the frame in each sum.
    sums : float32 [r, y, x]
        Changed in place.
    fill : float
        Value of pixels outside the recorded frame. The frame is not periodic.
    threads : int
        CPU threads. The result does not depend on them.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, or NumPy and CuPy arrays mixed.
    """
    backend = backend_of(coefficients=coefficients, shifts=shifts, weights=weights, sums=sums)
    if spacing < 1:
        raise ValueError(f"spacing must be at least 1 pixel, not {spacing}.")
    check("coefficients", coefficients, np.float32, (None, None))
    ny, nx = coefficients.shape
    check("shifts", shifts, np.float32, (2, node_count(ny, spacing), node_count(nx, spacing)))
    check("weights", weights, np.float32, (None,))
    check("sums", sums, np.float32, (len(weights), ny, nx))
    for name, array in (("coefficients", coefficients), ("shifts", shifts), ("weights", weights), ("sums", sums)):
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} must be in C order.")
    if backend == "cuda":
        from cryopipe.kernels.cuda import warp as cuda

        cuda.accumulate(coefficients, shifts, spacing, weights, fill, sums)
        return
    value = np.float32(fill)
    _in_parts(ny, threads, lambda a, b: cpu.accumulate(coefficients, shifts, spacing, weights, value, sums, a, b))


def _in_parts(count: int, threads: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(first, last)`` on equal parts of ``count``, one per thread."""
    edges = np.linspace(0, count, max(threads, 1) + 1).astype(int).tolist()
    if threads <= 1:
        work(0, count)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))
