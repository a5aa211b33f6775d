"""What the self-test reports, and how it moves arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Mover = Callable[[Any], Any]


@dataclass(frozen=True)
class Row:
    """One line of the self-test.

    Attributes
    ----------
    name : str
        What was checked or measured.
    device : str
        ``cpu`` or ``gpu``.
    passed : bool
        Whether the error is within the tolerance (measurements always pass).
    seconds : float
        Wall time, compilation included.
    detail : str
        Error and tolerance, or the measured figure with its unit.
    value : float
        The error, or the figure.
    """

    name: str
    device: str
    passed: bool
    seconds: float
    detail: str
    value: float


@dataclass(frozen=True)
class Check:
    """One comparison of a kernel with its formula.

    Attributes
    ----------
    kernel : str
        Module of `cryopipe.kernels`.
    what : str
        Which part of the kernel is checked.
    error : callable
        ``error(move)`` returns the largest error relative to the size of the result, for arrays moved by ``move``.
    limit : float
        Largest error that the rounding of float32 explains.
    on_gpu : bool
        Whether the kernel also runs on CUDA.
    """

    kernel: str
    what: str
    error: Callable[[Mover], float]
    limit: float
    on_gpu: bool = True


def mover(device: str) -> Mover:
    """Return the function that moves an array to the device."""
    if device == "cpu":
        return np.asarray
    import cupy

    return cupy.asarray


def host(array: Any) -> np.ndarray:
    """Return the array in host memory."""
    return array if isinstance(array, np.ndarray) else array.get()
