"""The coherent sum of moved spectra and its derivative by every shift. They are the core of joint alignment.

For spectra Y_t(k) of one place, t = 1..n, and shifts s_t, T(k) = Σ_t Y_t exp(-2πi k·s_t). The functions give T, and the
derivative of Q = Σ_k w(k) |T(k)|² with respect to every shift, 4π Σ_k k w Im(T* Y_t exp(-2πi k·s_t)). Frequencies fill a
disc of half the plane, row by row. Row j has ``lengths[j]`` of the ``kx``, from place ``starts[j]`` of K on. A shorter
length, or 0, leaves the rest of the row out.

Both functions read ``values`` once: n K complex numbers of 8 bytes, with about 20 operations each. They run on the CPU
alone. For the seven million coefficients per frame of a large movie they take some hundredths of a second.
"""

from __future__ import annotations

import numpy as np

from cryopipe.kernels._dispatch import backend_of, check
from cryopipe.kernels.cpu import coherence as cpu


def coherent_sum(
    values: np.ndarray, shifts: np.ndarray, ky: np.ndarray, kx: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Return T ``[K]`` complex64. It is zero at frequencies that no row includes.

    Parameters
    ----------
    values : complex64 [n, K]
        Spectra, Friedel mates left out.
    shifts : float64 [n, 2]
        (x, y) by which the content of each is moved, pixels.
    ky, kx : float64 [rows], [columns]
        Frequencies, 1/px.
    starts, lengths : int64 [rows]
        Place of a row in K, and the number of its frequencies that are used.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, a row beyond K or kx, or an array on the GPU.
    """
    _check(values, shifts, ky, kx, starts, lengths)
    total = np.zeros(values.shape[1], dtype=np.complex64)
    cpu.coherent_sum(values, shifts, ky, kx, starts, lengths, total)
    return total


def shift_gradients(
    values: np.ndarray,
    total: np.ndarray,
    weights: np.ndarray,
    shifts: np.ndarray,
    ky: np.ndarray,
    kx: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
) -> np.ndarray:
    """Return dQ/ds ``[n, 2]`` float64 (x, y) in 1/px.

    Parameters
    ----------
    values, shifts, ky, kx, starts, lengths
        As in :func:`coherent_sum`.
    total : complex64 [K]
        Result of :func:`coherent_sum`.
    weights : float32 [K]

    Raises
    ------
    TypeError, ValueError
        As in :func:`coherent_sum`.
    """
    _check(values, shifts, ky, kx, starts, lengths)
    check("total", total, np.complex64, (values.shape[1],))
    check("weights", weights, np.float32, (values.shape[1],))
    gradients = np.zeros((len(values), 2))
    cpu.shift_gradients(values, total, weights, shifts, ky, kx, starts, lengths, gradients)
    return gradients


def _check(
    values: np.ndarray, shifts: np.ndarray, ky: np.ndarray, kx: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> None:
    if backend_of(values=values, shifts=shifts, ky=ky, kx=kx, starts=starts, lengths=lengths) != "cpu":
        raise TypeError("patches of movies are aligned on the CPU. Pass NumPy arrays.")
    check("values", values, np.complex64, (None, None))
    check("shifts", shifts, np.float64, (len(values), 2))
    for name, array in (("ky", ky), ("kx", kx)):
        check(name, array, np.float64, (None,))
    for name, array in (("starts", starts), ("lengths", lengths)):
        check(name, array, np.int64, (len(ky),))
    if len(ky) and (
        lengths.min() < 0 or starts.min() < 0 or lengths.max() > len(kx) or (starts + lengths).max() > values.shape[1]
    ):
        raise ValueError(f"rows of frequencies are outside the {values.shape[1]} values or the {len(kx)} columns.")
