"""Compiles the project's ``.cu`` files with g++ and runs them on the CPU behind the launch code that CuPy would serve.

What this proves without a GPU: the kernels' numbers, their indexing, and the order, type and size of every argument.
What it cannot prove: races between threads, speed, and that the CUDA compiler accepts the source (see
test_cuda_sources.py).
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cryopipe.kernels import _dispatch, _pose_call, pose_steps
from cryopipe.kernels.cuda import _source

HEADER = Path(__file__).with_name("cuda_on_host.hpp")
PUBLIC = ("slices", "orbits", "poses", "rings", "peaks", "warp")


def compiler() -> str | None:
    return shutil.which("g++")


@functools.cache
def _build_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="cryopipe-emulation-")


_one_compiler_at_a_time = threading.Lock()


def _library(name: str) -> ctypes.CDLL:
    # threads of several devices ask for the same library at the same time
    with _one_compiler_at_a_time:
        return _compiled(name)


@functools.cache
def _compiled(name: str) -> ctypes.CDLL:
    text = (_source.FOLDER / f"{name}.cu").read_text(encoding="utf-8")
    kernels = re.findall(r"__global__ void (\w+)\(", text)
    text = re.sub(r"extern __shared__ (\w+) (\w+)\[\];", r"\1* \2 = (\1*)emulated_shared;", text)
    folder = Path(_build_folder().name)
    source = folder / f"{name}.cpp"
    launchers = "\n".join(f"LAUNCHER({kernel})" for kernel in kernels)
    source.write_text(f'#include "{HEADER}"\n#line 1 "{name}.cu"\n{text}\n{launchers}\n', encoding="utf-8")
    built = folder / f"{name}.so"
    subprocess.run(
        [compiler(), "-std=c++17", "-O1", "-shared", "-fPIC", "-w", f"-I{_source.FOLDER}",
         f"-DTHREADS={_source.THREADS}", "-o", str(built), str(source)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return ctypes.CDLL(str(built))


def function(name: str, kernel: str) -> Any:
    """Stand in for ``cuda._source.function``: a callable of (grid, block, arguments, shared_mem)."""
    run = getattr(_library(name), f"launch_{kernel}")

    def call(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], shared_mem: int = 0) -> None:
        assert shared_mem <= 48 * 1024
        assert all(1 <= size <= limit for size, limit in zip(grid, (2**31 - 1, 65535, 65535), strict=False)), grid
        boxes: list[Any] = []
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                assert argument.flags.c_contiguous, f"{kernel}: an array that is not in C order"
                boxes.append(ctypes.c_void_p(argument.ctypes.data))
            else:
                # CuPy would guess the type of a Python number
                assert isinstance(argument, np.generic), f"{kernel}: {argument!r} is not a typed scalar"
                boxes.append(ctypes.create_string_buffer(argument.tobytes(), argument.nbytes))
        pointers = (ctypes.c_void_p * len(boxes))(*[ctypes.addressof(box) for box in boxes])
        sizes = (ctypes.c_size_t * len(boxes))(*[ctypes.sizeof(box) for box in boxes])
        full_grid = (ctypes.c_uint * 2)(grid[0], grid[1] if len(grid) > 1 else 1)
        problem = run(full_grid, ctypes.c_uint(block[0]), len(boxes), pointers, sizes)
        assert problem == 0, (
            f"{kernel}: argument {problem - 1} of {len(boxes)} has the wrong size, or their number is wrong"
        )

    return call


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the public kernels take the CUDA path for NumPy arrays, with NumPy in CuPy's place."""
    # a module that is imported while _source is patched would keep what it found there for good
    launchers = [importlib.import_module(f"cryopipe.kernels.cuda.{name}") for name in PUBLIC]
    cupy = ModuleType("cupy")
    cupy.__getattr__ = lambda name: getattr(np, name)  # type: ignore[method-assign]
    cupy.asnumpy = np.asarray  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    for launcher, name in zip(launchers, PUBLIC, strict=True):
        monkeypatch.setattr(launcher, "function", function)
        public = importlib.import_module(f"cryopipe.kernels.{name}")
        if name != "poses":  # asks by way of _pose_call
            monkeypatch.setattr(public, "backend_of", lambda **arrays: "cuda")
    for module in (_dispatch, _pose_call, pose_steps):
        monkeypatch.setattr(module, "backend_of", lambda **arrays: "cuda")
