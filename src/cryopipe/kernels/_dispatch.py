"""The choice of the implementation by the type of the arrays, and the checks that all kernels use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import numba
import numpy as np
import numpy.typing as npt

Backend = Literal["cpu", "cuda"]
#: A NumPy or a CuPy array. The two are never mixed in one call.
Array = Any


def backend_of(**arrays: Array) -> Backend:
    """Return ``"cpu"`` if all named arrays are NumPy's and ``"cuda"`` if all are CuPy's. None is skipped.

    Raises
    ------
    TypeError
        The two are mixed, or an argument is neither (a list, a tensor). The message names the argument.
    """
    kinds: dict[str, Backend] = {}
    for name, array in arrays.items():
        if array is None:
            continue
        if isinstance(array, np.ndarray):
            kinds[name] = "cpu"
        elif hasattr(array, "__cuda_array_interface__") and type(array).__module__.split(".")[0] == "cupy":
            kinds[name] = "cuda"
        else:
            raise TypeError(f"{name} must be a NumPy or a CuPy array, not {type(array).__name__}.")
    found = set(kinds.values())
    if len(found) > 1:
        listing = ", ".join(f"{name} on {kind}" for name, kind in kinds.items())
        raise TypeError(f"NumPy and CuPy arrays are mixed ({listing}). Move all of them to one device.")
    return found.pop() if found else "cpu"


def check_on_cpu(**arrays: Array) -> None:
    """Refuse named arrays that are not NumPy's, for a kernel without a CUDA side.

    Raises
    ------
    TypeError
        An array of the GPU, or none of either kind.
    """
    if backend_of(**arrays) != "cpu":
        raise TypeError(f"this kernel runs on the CPU alone: pass {', '.join(arrays)} as NumPy arrays.")


def library(backend: Backend) -> Any:
    """Return the array library of a backend: NumPy or CuPy."""
    if backend == "cpu":
        return np
    import cupy

    return cupy


def check(name: str, array: Array, dtype: npt.DTypeLike, shape: tuple[int | None, ...]) -> None:
    """Refuse an array of another dtype or shape. None in ``shape`` means any length.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    array : Array
    dtype : data type
    shape : tuple of int or None

    Raises
    ------
    TypeError
        Wrong dtype. Kernels do not convert large arrays by themselves.
    ValueError
        Wrong shape.
    """
    if array.dtype != np.dtype(dtype):
        raise TypeError(f"{name} must be {np.dtype(dtype).name}, not {array.dtype.name}.")
    if array.ndim != len(shape) or any(w is not None and w != s for w, s in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if w is None else str(w) for w in shape)
        raise ValueError(f"{name} must have shape ({wanted}), not {tuple(array.shape)}.")


def check_rotations(name: str, rotations: Array) -> None:
    """Refuse matrices whose first two rows are not orthonormal within 1e-4, which would sample outside the cube.

    1e-4 is 100 times the rounding of a float32 rotation. It moves a sample by < 0.1 voxel at a padded radius of 1000.
    """
    if rotations.ndim < 2 or rotations.shape[-2:] != (3, 3):
        raise ValueError(f"{name} must have shape (..., 3, 3), not {tuple(rotations.shape)}.")
    if rotations.dtype.kind != "f":
        raise TypeError(f"{name} must be floating point, not {rotations.dtype.name}.")
    if rotations.size == 0:
        return
    first, second = rotations[..., 0, :], rotations[..., 1, :]
    worst = max(
        float(abs((first * first).sum(-1) - 1).max()),
        float(abs((second * second).sum(-1) - 1).max()),
        float(abs((first * second).sum(-1)).max()),
    )
    if not worst < 1e-4:
        raise ValueError(
            f"{name} are not rotation matrices. Their rows deviate from orthonormal by {worst:.3g} (limit 1e-4)."
        )


def contiguous(array: Array, dtype: npt.DTypeLike) -> Array:
    """Return an array in C order with this dtype (a copy only if needed)."""
    return library(backend_of(array=array)).ascontiguousarray(array, dtype=dtype)


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Run CPU kernels with at most ``count`` threads inside the block. Results do not depend on it."""
    if count < 1:
        raise ValueError(f"count of threads must be at least 1, not {count}.")
    before = numba.get_num_threads()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(before)
