"""Spectra of images, each moved by a shift of its own: Y(k) exp(-2πi k·t), as a product of one ramp along x and one along y."""

from __future__ import annotations

import numpy as np

from cryopipe.kernels._dispatch import check, check_on_cpu
from cryopipe.kernels.cpu.spectra import phases as cpu


def shift_spectra(
    values: np.ndarray,
    turns: np.ndarray,
    kx: np.ndarray,
    ky: np.ndarray,
    radius: int,
    *,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Return the moved spectra, complex64 ``[n, K]``.

    Parameters
    ----------
    values : complex64 [n, K]
        Spectra on the pixels of half a plane.
    turns : float64 [n, 2]
        Shift (x, y) over the box.
    kx, ky : int32 [K]
        Frequencies, Fourier pixels; kx is not negative.
    radius : int
        No frequency is larger.
    out : complex64 [n, K], optional
        Receives the result; may be ``values``.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, or an array of the GPU.
    """
    check_on_cpu(values=values, turns=turns, kx=kx, ky=ky)
    check("values", values, np.complex64, (None, len(kx)))
    check("turns", turns, np.float64, (len(values), 2))
    check("kx", kx, np.int32, (None,))
    check("ky", ky, np.int32, kx.shape)
    moved = np.empty((len(values), len(kx)), np.complex64) if out is None else out
    check("out", moved, np.complex64, values.shape)
    cpu.shift_spectra(values, kx, ky, turns, np.int64(radius), moved)
    return moved
