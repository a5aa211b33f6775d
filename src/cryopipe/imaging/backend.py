"""Which array library an array belongs to: NumPy on the CPU, CuPy on the GPU; one computation never mixes the two."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import numpy as np


def is_cupy(array: object) -> bool:
    """Return whether ``array`` is a CuPy array, without importing CuPy."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def array_module(*arrays: object) -> ModuleType:
    """Return the library (``numpy`` or ``cupy``) whose functions fit ``arrays``.

    Parameters
    ----------
    *arrays : object
        NumPy or CuPy arrays. Scalars, lists and None have no side and are ignored.

    Raises
    ------
    TypeError
        NumPy and CuPy arrays come together: nothing is copied between host and device without being asked for.
    """
    on_gpu = [is_cupy(a) for a in arrays if isinstance(a, np.ndarray) or is_cupy(a)]
    if not any(on_gpu):
        return np
    if not all(on_gpu):
        raise TypeError(
            "NumPy and CuPy arrays are mixed in one call; move all of them to the same side (cupy.asarray or .get())"
        )
    return importlib.import_module("cupy")


def fft_module(xp: ModuleType) -> ModuleType:
    """Return the FFT library of ``xp`` that keeps single precision: ``scipy.fft`` or ``cupyx.scipy.fft``."""
    return importlib.import_module("scipy.fft" if xp is np else "cupyx.scipy.fft")


def fft_workers(xp: ModuleType, threads: int) -> dict[str, int]:
    """Return the ``threads`` keyword for an FFT call where the library of ``xp`` has one (SciPy); empty for CuPy."""
    return {"workers": threads} if xp is np else {}


def to_numpy(array: Any) -> np.ndarray:
    """Return ``array`` as a NumPy array, copied from the GPU if it lives there."""
    return array.get() if is_cupy(array) else np.asarray(array)
