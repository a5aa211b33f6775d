"""Launches of ``slices.cu``; the caller has checked shapes and types."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.kernels.cuda._source import THREADS, blocks, function


def extract_slices(cube: Any, radius: int, rotations: Any, kx: Any, ky: Any, padding: float, out: Any) -> None:
    """Fill ``out`` [n, K]; grid (image, block of samples).

    Parameters
    ----------
    cube : CuPy complex64 [2R+1, 2R+1, R+1]
        Centred half cube.
    radius : int
        R.
    rotations, kx, ky : CuPy array
        As in :func:`cryopipe.kernels.slices.extract_slices`.
    padding : float
        Grid steps per Fourier pixel.
    out : CuPy complex64 [n, K]
        Receives the slices.
    """
    if out.size == 0:
        return
    function("slices", "extract_slices")(
        (rotations.shape[0], blocks(kx.size)), (THREADS,),
        (cube, np.int32(radius), rotations, kx, ky, np.int32(kx.size), np.float32(padding), out),
    )  # fmt: skip


def insert_slices(
    numerator: Any, weight: Any, radius: int, rotations: Any, values: Any, weights: Any, kx: Any, ky: Any,
    position: Any, padding: float, ordered: bool,
) -> None:  # fmt: skip
    """Add to ``numerator`` and ``weight`` in place, by atomic scatter or, ``ordered``, by a gather over voxels.

    ``rotations`` is [n, m, 3, 3].

    Parameters
    ----------
    numerator, weight : CuPy complex64 and float32 [2R+1, 2R+1, R+1]
        Receive the sums.
    radius : int
        R.
    rotations : CuPy float32 [n, m, 3, 3]
        Pose matrices, m for each image.
    values, weights, kx, ky, position : CuPy array
        As in :func:`cryopipe.kernels.slices.insert_slices`, prepared there.
    padding : float
        Grid steps per Fourier pixel.
    ordered : bool
        Whether sums keep an order, so that their bits do.
    """
    count = np.int32(kx.size)
    images, copies = rotations.shape[:2]
    if ordered:
        function("slices", "insert_slices_ordered")(
            (blocks(weight.size),), (THREADS,),
            (numerator, weight, np.int32(radius), rotations, np.int32(images * copies), np.int32(copies), values, weights,
             position, np.int32(position.shape[1] - 1), count, np.float32(padding)),
        )  # fmt: skip
        return
    function("slices", "insert_slices")(
        (images * copies, blocks(kx.size)), (THREADS,),
        (numerator, weight, np.int32(radius), rotations, np.int32(copies), values, weights, kx, ky, count,
         np.float32(padding)),
    )  # fmt: skip
