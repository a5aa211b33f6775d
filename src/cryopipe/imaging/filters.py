"""Radial Fourier filters of images and volumes, B-factor sharpening and FSC weighting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module, fft_module, fft_workers
from cryopipe.imaging.frequencies import radial_frequency

Shape = Literal["cosine", "gaussian"]


def apply_transfer(
    data: Any,
    pixel_size_A: float,
    transfer: Callable[[np.ndarray], np.ndarray],
    *,
    ndim: int | None = None,
    threads: int = 1,
) -> Any:
    """Multiply the Fourier transform of ``data`` by ``transfer(|k|)``.

    Parameters
    ----------
    data : array
        Real image ``[y, x]``, volume ``[z, y, x]`` or, with ``ndim=2``, a stack ``[n, y, x]``. Not changed.
    pixel_size_A : float
        Å per pixel.
    transfer : callable
        From frequencies in 1/Å (float32 array of any shape) to real factors of the same shape.
    ndim : int, optional
        How many of the last axes are transformed; all of them by default.

    Returns
    -------
    array of the shape of ``data``, float32
    """
    xp = array_module(data)
    axes = tuple(range(-(ndim or data.ndim), 0))
    shape = tuple(int(data.shape[a]) for a in axes)
    factors = np.asarray(transfer(radial_frequency(shape, pixel_size_A)), dtype=np.float32)
    fft = fft_module(xp)
    spectrum = fft.rfftn(xp.asarray(data, dtype=xp.float32), axes=axes, **fft_workers(xp, threads)).astype(
        xp.complex64, copy=False
    )
    spectrum *= xp.asarray(factors)
    return fft.irfftn(spectrum, s=shape, axes=axes, **fft_workers(xp, threads)).astype(xp.float32, copy=False)


def low_pass_transfer(k: np.ndarray, cutoff: float, *, width: float, shape: Shape = "cosine") -> np.ndarray:
    """Return the gain of a low-pass filter at frequencies ``k``. It is ½ at ``cutoff`` (same unit).

    ``cosine``: 1 below ``cutoff - width/2``, 0 above ``cutoff + width/2``, half a cosine between.
    ``gaussian``: exp(-ln 2 · (k / cutoff)²). ``width`` is not used.

    Parameters
    ----------
    k : ndarray
        Frequencies.
    cutoff : float
        Frequency at which the gain is one half, in the unit of ``k``.
    width : float
        Width of the edge, in the unit of ``k``.
    shape : {"cosine", "gaussian"}
        Shape of the edge.
    """
    if shape == "gaussian":
        return np.exp(-np.log(2.0) * np.square(k / cutoff))
    if shape != "cosine":
        raise InputError(f"filter shape {shape!r} is unknown. Choose cosine or gaussian.")
    if width <= 0.0:
        return (k <= cutoff).astype(np.float32)
    position = np.clip((k - (cutoff - 0.5 * width)) / width, 0.0, 1.0)
    return 0.5 + 0.5 * np.cos(np.pi * position)


def low_pass(
    data: Any,
    pixel_size_A: float,
    resolution_A: float,
    *,
    edge_shells: float = 4.0,
    shape: Shape = "cosine",
    ndim: int | None = None,
    threads: int = 1,
) -> Any:
    """Remove details finer than ``resolution_A``, where the gain is ½. :func:`apply_transfer` describes the arrays.

    Parameters
    ----------
    edge_shells : float
        Full width of the cosine edge in Fourier pixels of the longest side; 0 cuts sharply.
    """
    cutoff, width = _edge(data, pixel_size_A, resolution_A, edge_shells, ndim)
    return apply_transfer(
        data, pixel_size_A, lambda k: low_pass_transfer(k, cutoff, width=width, shape=shape), ndim=ndim, threads=threads
    )


def _edge(
    data: Any, pixel_size_A: float, resolution_A: float, edge_shells: float, ndim: int | None
) -> tuple[float, float]:
    if not resolution_A > 0.0:
        raise InputError(f"a filter's resolution must be positive, not {resolution_A} Å")
    longest = max(data.shape[-(ndim or data.ndim) :])
    return 1.0 / resolution_A, edge_shells / (longest * pixel_size_A)


def apply_b_factor(
    data: Any, pixel_size_A: float, b_factor_A2: float, *, ndim: int | None = None, threads: int = 1
) -> Any:
    """Multiply the transform by exp(-B k² / 4). A positive B (Å²) damps, a negative one sharpens.

    Parameters
    ----------
    data : ndarray
        Images or volumes; the last ``ndim`` axes are filtered.
    pixel_size_A : float
    b_factor_A2 : float
        B-factor in Å²; a negative one sharpens.
    ndim : int, optional
        2 for images, 3 for volumes; all axes by default.
    threads : int
        CPU threads.
    """
    return apply_transfer(
        data, pixel_size_A, lambda k: np.exp(-0.25 * b_factor_A2 * np.square(k)), ndim=ndim, threads=threads
    )


def fsc_weight(curve: ArrayLike) -> np.ndarray:
    """Return Cref = √(2 FSC / (1 + FSC)), the estimated correlation of the joint map with the truth; 0 where FSC <= 0.

    References
    ----------
    Rosenthal & Henderson 2003, doi:10.1016/j.jmb.2003.07.013.
    """
    positive = np.clip(np.asarray(curve, dtype=np.float64), 0.0, 1.0)
    return np.sqrt(2.0 * positive / (1.0 + positive))


def apply_shell_curve(data: Any, curve: ArrayLike, *, ndim: int | None = None, threads: int = 1) -> Any:
    """Multiply the transform by a curve with one value per shell (index = Fourier pixels), linear between shells.

    Beyond its end the curve keeps its last value.

    Parameters
    ----------
    data : ndarray
        Images or volumes; the last ``ndim`` axes are filtered.
    curve : ndarray [shells]
        Factor of each shell.
    ndim : int, optional
        2 for images, 3 for volumes; all axes by default.
    threads : int
        CPU threads.
    """
    values = np.asarray(curve, dtype=np.float64)
    longest = max(data.shape[-(ndim or data.ndim) :])
    shells = np.arange(len(values))
    return apply_transfer(data, 1.0, lambda k: np.interp(k * longest, shells, values), ndim=ndim, threads=threads)
