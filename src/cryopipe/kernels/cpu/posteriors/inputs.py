"""The data side of a search's products."""

from __future__ import annotations

import numba
import numpy as np

from cryopipe.kernels.cpu.spectra.ramps import fill_ramp


@numba.njit(cache=True, nogil=True)
def square(references, power):  # type: ignore[no-untyped-def]
    """Fill ``power`` with |references|²."""
    for o in range(references.shape[0]):
        for k in range(references.shape[1]):
            power[o, k] = references[o, k].real ** 2 + references[o, k].imag ** 2


# Strict arithmetic: arrays of another layout are another compiled function, and fused products would round differently.
@numba.njit(cache=True, nogil=True)
def fill_rows(  # type: ignore[no-untyped-def]
    values, ctf, inverse_variance, noise_group, turns, kx, ky, phases, part, group, rows, information, finite, first, last,
):  # fmt: skip
    """Fill the data side of the products: C X e^{..}/σ² for every (image, shift), C²/σ² for every image.

    ``turns`` [n, 2] is the image's own shift over the box; its ramp is separable: 3 radius sines and cosines.

    Parameters
    ----------
    values, ctf : complex64 and float32 [images, K]
        Spectra and CTFs.
    inverse_variance : float32 [noise groups, K]
        1 / σ².
    noise_group : int [images]
        Row of ``inverse_variance`` of each image.
    turns : float64 [images, 2]
        The image's own shift over the box.
    kx, ky : integer [K]
        Frequencies, Fourier pixels.
    phases : complex64 [shifts, K]
        Phase factors of the common shifts.
    part : int [n]
        Images of the tile.
    group : int
        Images of a group; image i is number ``i % group`` of group ``i // group``.
    rows : complex64 [groups, group shifts, K]
        Receives C X e^{..} / σ².
    information : float32 [groups, group, K]
        Receives C² / σ².
    finite : bool [n]
        Receives whether all values of an image are finite.
    first, last : int
        Images that this call works on.
    """
    n_shifts, n_pixels = phases.shape
    radius = 0
    for k in range(n_pixels):
        radius = max(radius, max(kx[k], abs(ky[k])))
    weighted = np.empty(n_pixels, np.complex64)
    along_x = np.ones(radius + 1, np.complex64)
    along_y = np.ones(2 * radius + 1, np.complex64)
    for i in range(first, last):
        image = part[i]
        inverse = inverse_variance[noise_group[image]]
        here, slot = rows[i // group], (i % group) * n_shifts
        known = information[i // group, i % group]
        total = np.float32(0)
        for k in range(n_pixels):
            factor = ctf[image, k] * inverse[k]
            known[k] = factor * ctf[image, k]
            weighted[k] = values[image, k] * factor
            total += known[k] + (values[image, k].real + values[image, k].imag)
        finite[i] = np.isfinite(total)
        if turns[image, 0] != 0 or turns[image, 1] != 0:
            fill_ramp(turns[image, 0], along_x, 0)
            fill_ramp(turns[image, 1], along_y, radius)
            for k in range(n_pixels):
                weighted[k] *= along_x[kx[k]] * along_y[ky[k] + radius]
        for s in range(n_shifts):
            row = here[slot + s]
            for k in range(n_pixels):
                row[k] = weighted[k] * phases[s, k]
