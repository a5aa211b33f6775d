"""One test body for every implementation: float64 reference, CPU, CUDA sources emulated on the CPU, and CUDA."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cryopipe.kernels.devices import gpu_unavailable_reason
from tests.kernels.emulation import host


@dataclass(frozen=True)
class Implementation:
    """Where a test runs: ``kernel("slices.extract_slices")`` finds the function, ``array`` and ``numpy`` move data."""

    name: str

    def kernel(self, path: str) -> Callable[..., Any]:
        module, function = path.split(".")
        root = "tests.kernels.reference" if self.name == "reference" else "cryopipe.kernels"
        return getattr(importlib.import_module(f"{root}.{module}"), function)

    def array(self, values: Any) -> Any:
        if self.name != "cuda":
            return values
        import cupy

        return cupy.asarray(values)

    def numpy(self, values: Any) -> np.ndarray:
        if self.name != "cuda":
            return values
        import cupy

        return cupy.asnumpy(values)

    def call(self, path: str, *arrays: Any, **options: Any) -> Any:
        """Call a kernel with NumPy arrays (options too) and return NumPy arrays."""
        moved = {k: self.array(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        result = self.kernel(path)(*[self.array(a) for a in arrays], **moved)
        return tuple(map(self.numpy, result)) if isinstance(result, tuple) else self.numpy(result)


def _on(name: str, monkeypatch: pytest.MonkeyPatch) -> Implementation:
    if name == "cuda" and (reason := gpu_unavailable_reason()):
        pytest.skip(f"no CUDA kernel can run here: {reason}")
    if name == "emulated":
        if host.compiler() is None:
            pytest.skip("g++ is not installed, so CUDA sources cannot be emulated")
        host.install(monkeypatch)
    return Implementation(name)


CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=["reference", "cpu", "emulated", CUDA])
def on(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Implementation:
    """Every implementation, the reference included."""
    return _on(request.param, monkeypatch)


@pytest.fixture(params=["cpu", "emulated", CUDA])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Implementation:
    """Every implementation that is compared with the reference."""
    return _on(request.param, monkeypatch)


@pytest.fixture(params=["emulated", CUDA])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Implementation:
    """CUDA alone, for what only a GPU promises."""
    return _on(request.param, monkeypatch)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240501)
