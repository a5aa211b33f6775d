"""Launches of ``poses.cu``; the caller has checked shapes and types."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.kernels.cuda._source import THREADS, function


def normal_equations(
    cube: Any, radius: int, data: Any, ctf: Any, slope: Any, inverse_variance: Any, rotations: Any, shifts: Any,
    scale: Any, kx: Any, ky: Any, k_max: int, padding: Any, box: float, with_scale: bool, hessian: Any, gradient: Any,
    value: Any,
) -> None:  # fmt: skip
    """Fill hessian, gradient and value; one block an image. ``k_max`` serves the CPU's tables only."""
    with_defocus = slope.shape[1] > 0
    function("poses", "normal_equations")(
        (data.shape[0],), (THREADS,),
        (cube, np.int32(radius), data, ctf, slope if with_defocus else ctf, inverse_variance,
         np.int32(inverse_variance.shape[0] > 1), rotations, shifts, scale, kx, ky, np.int32(kx.size), padding,
         np.float64(box), np.int32(with_scale), np.int32(with_defocus), hessian, gradient, value),
    )  # fmt: skip


def score_poses(
    cube: Any, radius: int, data: Any, ctf: Any, inverse_variance: Any, rotations: Any, shifts: Any, scale: Any,
    kx: Any, ky: Any, k_max: int, padding: Any, box: float, out: Any,
) -> None:  # fmt: skip
    """Fill ``out`` [n, m, s]; grid (image, candidate), in parts of the 65 535 candidates that fit a grid."""
    if rotations.shape[1] > 65535:
        for first in range(0, rotations.shape[1], 65535):
            part = slice(first, first + 65535)
            own = out[:, part].copy()
            score_poses(
                cube, radius, data, ctf, inverse_variance, rotations[:, part].copy(), shifts[:, part].copy(), scale,
                kx, ky, k_max, padding, box, own,
            )  # fmt: skip
            out[:, part] = own
        return
    function("poses", "score_poses")(
        (out.shape[0], out.shape[1]), (THREADS,),
        (cube, np.int32(radius), data, ctf, inverse_variance, np.int32(inverse_variance.shape[0] > 1), rotations,
         shifts, np.int32(out.shape[2]), scale, kx, ky, np.int32(kx.size), padding, np.float64(box), out),
    )  # fmt: skip
