"""Which library an array belongs to: NumPy on the CPU or CuPy on the GPU. One computation never mixes the two."""

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
        NumPy or CuPy arrays. Scalars, lists and None are ignored.

    Raises
    ------
    TypeError
        NumPy and CuPy arrays are mixed. Arrays are not copied between host and device without a request.
    """
    on_gpu = [is_cupy(a) for a in arrays if isinstance(a, np.ndarray) or is_cupy(a)]
    if not any(on_gpu):
        return np
    if not all(on_gpu):
        raise TypeError(
            "NumPy and CuPy arrays are mixed in one call. Move all of them to the same side (cupy.asarray or .get())."
        )
    return importlib.import_module("cupy")


def fft_module(xp: ModuleType) -> ModuleType:
    """Return the FFT library of ``xp`` that keeps single precision: ``scipy.fft`` or ``cupyx.scipy.fft``."""
    return importlib.import_module("scipy.fft" if xp is np else "cupyx.scipy.fft")


def fft_workers(xp: ModuleType, threads: int) -> dict[str, int]:
    """Return the keyword for ``threads`` in an FFT call: ``workers`` for SciPy, an empty dictionary for CuPy."""
    return {"workers": threads} if xp is np else {}


def to_numpy(array: Any) -> np.ndarray:
    """Return ``array`` as a NumPy array. It is copied if it is on the GPU."""
    return array.get() if is_cupy(array) else np.asarray(array)
