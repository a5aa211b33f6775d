"""Launches of ``poses.cu``; the caller has checked shapes and types."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.kernels.cuda._source import THREADS, function

#: as in poses.cu
_DEFOCI = 8


def normal_equations(
    cube: Any, radius: int, data: Any, ctf: Any, inverse_variance: Any, rotations: Any, shifts: Any, scale: Any,
    phase: Any, per_unit: Any, spectrum: Any, offset: Any, kx: Any, ky: Any, padding: Any, box: float, with_scale: bool,
    n_defocus: int, hessian: Any, gradient: Any, value: Any,
) -> None:  # fmt: skip
    """Fill hessian, gradient and value; one block an image.

    Parameters
    ----------
    cube, data, ctf, inverse_variance, rotations, shifts, scale, kx, ky : CuPy array
        As in :func:`cryopipe.kernels.poses.normal_equations`; complex ones as pairs of float32.
    radius : int
        Radius of the cube in grid steps.
    phase, per_unit, spectrum, offset : CuPy array
        Phase and defocus terms, spectrum of the offset and the offset as there; empty where they are not used.
    padding, box : float
        Grid steps per Fourier pixel, side of the images.
    with_scale, n_defocus : bool, int
        Which further parameters there are.
    hessian, gradient, value : CuPy float64 [n, p, p], [n, p], [n]
        Receive the result.
    """
    extra = int(with_scale) + n_defocus + int(spectrum.size > 0)
    function("poses", f"normal_equations_{extra}")(
        (data.shape[0],), (THREADS,),
        (cube, np.int32(radius), data, ctf, inverse_variance, np.int32(inverse_variance.shape[0] > 1), rotations, shifts,
         scale, _some(phase, shifts), np.int32(phase.shape[1] > 0), per_unit, _some(spectrum, ctf), np.int32(spectrum.size),
         offset, kx, ky, np.int32(kx.size), padding, np.float64(box), np.int32(with_scale), np.int32(n_defocus),
         hessian, gradient, value),
    )  # fmt: skip


def score_defoci(
    cube: Any, radius: int, data: Any, ctf: Any, inverse_variance: Any, rotations: Any, shifts: Any, scale: Any,
    phase: Any, per_unit: Any, spectrum: Any, offset: Any, kx: Any, ky: Any, padding: Any, box: float, first: float,
    step: float, out: Any,
) -> None:  # fmt: skip
    """Fill ``out`` [n, d]; grid (image, group of defocus changes).

    Parameters
    ----------
    cube, radius, data, ctf, inverse_variance, rotations, shifts, scale, phase, per_unit, spectrum, offset, kx, ky, padding, box
        As in :func:`normal_equations`; ``phase`` is given.
    first, step : float
        First change of the defocus, and from one to the next.
    out : CuPy float64 [n, d]
        Receives the log-likelihoods.
    """
    function("poses", "score_defoci")(
        (out.shape[0], (out.shape[1] + _DEFOCI - 1) // _DEFOCI), (THREADS,),
        (cube, np.int32(radius), data, ctf, inverse_variance, np.int32(inverse_variance.shape[0] > 1), rotations, shifts,
         scale, phase, per_unit, _some(spectrum, ctf), np.int32(spectrum.size), offset, kx, ky, np.int32(kx.size), padding,
         np.float64(box), np.float64(first), np.float64(step), np.int32(out.shape[1]), out),
    )  # fmt: skip


def _some(array: Any, other: Any) -> Any:
    """Return the array, or for an empty one, which has no address, another that is not read."""
    return array if array.size else other
