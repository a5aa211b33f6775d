"""What images add to a reconstruction: C X exp(-2πi k·t) f and C² f, with a factor f by shell or by pixel, in one pass."""

from __future__ import annotations

import numpy as np

from cryopipe.kernels._dispatch import check, check_on_cpu
from cryopipe.kernels.cpu.spectra import weighting as cpu


def weigh(
    values: np.ndarray,
    ctf: np.ndarray,
    rows: np.ndarray,
    *,
    turns: np.ndarray,
    by_shell: np.ndarray,
    by_pixel: np.ndarray | None,
    pixels: tuple[np.ndarray, np.ndarray, np.ndarray],
    order: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values and weights of images ``rows``, and which of them are finite.

    Parameters
    ----------
    values, ctf : complex64, float32 [n, K]
        Spectra and CTFs of all images.
    rows : int64 [b]
        Which of them, in which order.
    turns : float64 [b, 2]
        Shift (x, y) over the box.
    by_shell : float32 [b, radius + 1]
        Factor on the shells of each.
    by_pixel : float32 [b, K], optional
        Factor on its pixels, too.
    pixels : (kx, ky, shell) int32 [K]
        Frequencies in Fourier pixels, and the shell that each lies in.
    order : int64 [K]
        Pixels in the order in which they are wanted.

    Returns
    -------
    values : complex64 [b, K]
    information : float32 [b, K]
    finite : bool [b]

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, or an array of the GPU.
    """
    size = values.shape[1]
    check_on_cpu(values=values, ctf=ctf, rows=rows, by_shell=by_shell, by_pixel=by_pixel)
    check("values", values, np.complex64, (None, None))
    check("ctf", ctf, np.float32, values.shape)
    check("rows", rows, np.int64, (None,))
    check("turns", turns, np.float64, (len(rows), 2))
    check("by_shell", by_shell, np.float32, (len(rows), None))
    check("order", order, np.int64, (size,))
    for name, array in zip(("kx", "ky", "shell"), pixels, strict=True):
        check(name, array, np.int32, (size,))
    if by_pixel is None:
        by_pixel = np.ones((1, 1), np.float32)
    else:
        check("by_pixel", by_pixel, np.float32, (len(rows), size))
    found, information = np.empty((len(rows), size), np.complex64), np.empty((len(rows), size), np.float32)
    finite = np.empty(len(rows), np.bool_)
    cpu.weigh(values, ctf, rows, *pixels, turns, by_shell, by_pixel, order, found, information, finite)
    return found, information, finite
