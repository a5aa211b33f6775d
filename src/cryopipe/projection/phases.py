"""Phase ramps over half-plane pixels, which shift an image in Fourier space."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.imaging.backend import array_module
from cryopipe.imaging.fourier_pixels import FourierPixels
from cryopipe.kernels.spectra.phases import shift_spectra


def phase_table(pixels: FourierPixels, shifts_px: np.ndarray) -> np.ndarray:
    """Return exp(-2πi k·t / box), which moves content by t = (x, y) px, for every shift: complex64 ``[s, K]``."""
    shifts = np.asarray(shifts_px, np.float64).reshape(-1, 2)
    turns = (shifts[:, :1] * pixels.kx + shifts[:, 1:] * pixels.ky) / pixels.box
    turns -= np.rint(turns)
    return np.exp(-2j * np.pi * turns).astype(np.complex64)  # [s, K]


def separable_ramps(pixels: FourierPixels, shifts_px: np.ndarray, xp: Any) -> Any:
    """Return the table of `phase_table` in the array library ``xp``, made as a product of a factor in x and one in y.

    Only 3 · radius sines and cosines per shift are computed (in float64, on the host) and copied.
    """
    shifts = np.asarray(shifts_px, np.float64).reshape(-1, 2)
    along = np.arange(-pixels.radius, pixels.radius + 1)
    x, y = (np.exp(-2j * np.pi / pixels.box * shifts[:, axis, None] * along).astype(np.complex64) for axis in (0, 1))
    at_x, at_y = (xp.asarray(k + pixels.radius) for k in (pixels.kx, pixels.ky))
    return xp.asarray(x)[:, at_x] * xp.asarray(y)[:, at_y]  # [s, K]


def shift_values(values: Any, pixels: FourierPixels, shifts_px: np.ndarray, *, in_place: bool = False) -> Any:
    """Return the spectra ``values`` [n, K] with each image moved by its own shift (x, y) px ``[n, 2]``, complex64.

    Parameters
    ----------
    values : complex64 ``[n, K]``
        Spectra, a NumPy or CuPy array.
    pixels : FourierPixels
        The K pixels.
    shifts_px : float ``[n, 2]``
        Shift (x, y) of each image.
    in_place : bool
        Overwrite ``values`` with the result, so that no second array is needed. This has an effect on the host only.
    """
    xp = array_module(values)
    if xp is not np:
        return values * separable_ramps(pixels, shifts_px, xp)
    turns = np.asarray(shifts_px, np.float64) / pixels.box
    return shift_spectra(values, turns, pixels.kx, pixels.ky, pixels.radius, out=values if in_place else None)
