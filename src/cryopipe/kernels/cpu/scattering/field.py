"""The field of view of a movie: images added to it, and its spectrum under the CTF, frame by frame."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def add_image(total, image, top, left):
    """Add an image to a periodic field.

    Parameters
    ----------
    total, image : float32 [Y, X], [y, x]
        The field, and what is added to it.
    top, left : int
        Row and column where the first pixel of the image lies.
    """
    height, width = total.shape
    for j in range(image.shape[0]):
        row = (top + j) % height
        for i in range(image.shape[1]):
            total[row, (left + i) % width] += image[j, i]


@njit(cache=True, nogil=True)
def transfer(
    even, odd, sine, cosine, fading, static, ice_amplitude, ice, alike, draw, first, fy, fx, shift, travel
):  # fmt: skip
    """Turn ``even`` in place into the spectrum of ψ, and renew the ice [y, x, 2] (a random walk) on the way.

    Parameters
    ----------
    even, odd, sine, cosine, fading, static, ice_amplitude, ice, alike, draw, first, fy, fx, shift, travel
        As in `cryopipe.kernels.scattering.field.transfer`.
    """
    ramp_x = np.exp(-2j * np.pi * fx * shift[0]).astype(np.complex64)
    ramp_y = np.exp(-2j * np.pi * fy * shift[1]).astype(np.complex64)
    for j in range(even.shape[0]):
        for i in range(even.shape[1]):
            keep = np.float32(0.0) if first else alike[j, i]
            fresh = np.sqrt(np.float32(1.0) - keep * keep)
            ice[j, i, 0] = keep * ice[j, i, 0] + fresh * draw[j, i, 0]
            ice[j, i, 1] = keep * ice[j, i, 1] + fresh * draw[j, i, 1]
            value = (even[j, i] * sine[j, i] + odd[j, i] * cosine[j, i]) * fading[j, i] + static[j, i]
            value += complex(ice[j, i, 0], ice[j, i, 1]) * ice_amplitude[j, i] * sine[j, i]
            blur = np.pi * (fx[i] * travel[0] + fy[j] * travel[1])
            if abs(blur) > 1e-3:
                value *= np.sin(blur) / blur
            even[j, i] = value * ramp_x[i] * ramp_y[j]
