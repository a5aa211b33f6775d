"""Phase ramps: the Fourier side of a shift."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit


@njit(inline="always")
def fill_ramp(turns, along, zero):
    """Fill ``along`` with exp(-2πi (k - zero) turns): a phase ramp is separable, 3 radius sines and cosines for one image."""
    for k in range(along.size):
        angle = -2 * np.pi * (k - zero) * turns
        along[k] = np.complex64(complex(np.cos(angle), np.sin(angle)))
