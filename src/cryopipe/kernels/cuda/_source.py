"""CUDA sources of this folder, compiled at run time, once per process (CuPy keeps the binaries on disk)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
#: threads of a block in every kernel; the sources reduce over this many
THREADS = 256


@functools.cache
def _module(name: str) -> Any:
    import cupy

    path = FOLDER / f"{name}.cu"
    # the compiler's messages then name the file and its own lines
    code = f'#line 1 "{path}"\n{path.read_text(encoding="utf-8")}'
    return cupy.RawModule(code=code, options=(f"-I{FOLDER}", f"-DTHREADS={THREADS}"))


@functools.cache
def function(name: str, kernel: str) -> Any:
    """Return the kernel ``kernel`` of ``<name>.cu``, compiled on first use."""
    return _module(name).get_function(kernel)


def blocks(count: int) -> int:
    """Return how many blocks of THREADS cover ``count`` items."""
    return (count + THREADS - 1) // THREADS
