"""CuPy's place taken by host memory and the project's CUDA sources compiled for the CPU, as strict as CuPy is.

Arrays belong to a device. As with CuPy, NumPy's arrays mix with them nowhere but in an index, nothing is converted to
NumPy unless asked, reductions give arrays, and what lies on another device than the current one is refused. So the way
that a step takes on a GPU runs here to its end. What this cannot prove: races, speed, the CUDA compiler's consent, and
that CuPy has every function of NumPy that is asked for.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.fft

from cryopipe.kernels.cuda import _source
from tests.kernels.emulation import host

_FACTS = {"shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides", "flags"}
_here = threading.local()
_one_kernel_at_a_time = threading.Lock()


def current_device() -> int:
    """Return the device of this thread."""
    return int(getattr(_here, "device", 0))


class EmulatedArray:
    """An array of a device; made by `wrap` alone."""

    __array_priority__ = 100.0

    def __init__(self, values: np.ndarray, device: int) -> None:
        self._values, self.device = values, device

    def get(self) -> np.ndarray:
        """Return a copy in host memory."""
        return self._values.copy()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": self.dtype.str, "version": 3}

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        return wrap(getattr(ufunc, method)(*bare(inputs), **bare(options)))

    def __array_function__(self, function: Callable[..., Any], _: Any, given: Any, options: Any) -> Any:
        return wrap(function(*bare(given), **bare(options)))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._values, name)
        if name in _FACTS:
            return value
        return _strict(value) if callable(value) else wrap(value)

    def __getitem__(self, index: Any) -> Any:
        return wrap(self._values[_as_index(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._values[_as_index(index)] = bare(value)

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return (wrap(one) for one in self._values)

    def __float__(self) -> float:
        return float(self._values)

    def __int__(self) -> int:
        return int(self._values)

    def __bool__(self) -> bool:
        return bool(self._values)


def _operator(name: str) -> Callable[..., Any]:
    function = getattr(operator, name)

    def apply(self: EmulatedArray, other: Any) -> Any:
        return wrap(function(bare(self), bare(other)))

    return apply


def _reflected(name: str) -> Callable[..., Any]:
    function = getattr(operator, name)
    return lambda self, other: wrap(function(bare(other), bare(self)))


def _single(name: str) -> Callable[..., Any]:
    function = getattr(operator, name)
    return lambda self: wrap(function(bare(self)))


def _in_place(name: str) -> Callable[..., Any]:
    function = getattr(operator, name)

    def apply(self: EmulatedArray, other: Any) -> Any:
        function(bare(self), bare(other))
        return self

    return apply


for _name in [
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
]:
    _python = f"{_name}_" if _name in ("and", "or") else _name
    setattr(EmulatedArray, f"__{_name}__", _operator(_python))
    setattr(EmulatedArray, f"__r{_name}__", _reflected(_python))
    setattr(EmulatedArray, f"__i{_name}__", _in_place(f"i{_name}"))
for _name in ["lt", "le", "gt", "ge", "eq", "ne"]:
    setattr(EmulatedArray, f"__{_name}__", _operator(_name))
for _name in ["neg", "pos", "abs", "invert"]:
    setattr(EmulatedArray, f"__{_name}__", _single(_name))
EmulatedArray.__name__, EmulatedArray.__module__ = "ndarray", "cupy"


def wrap(values: Any) -> Any:
    """Return results as arrays of the current device; reductions too, which give no scalars."""
    if isinstance(values, np.ndarray | np.generic):
        return EmulatedArray(np.asarray(values), current_device())
    if isinstance(values, tuple | list):
        return type(values)(wrap(one) for one in values)
    return values


def bare(values: Any) -> Any:
    """Return the host memory behind arguments, refusing what CuPy refuses."""
    if isinstance(values, EmulatedArray):
        if values.device != current_device():
            raise ValueError(f"an array of device {values.device} is used on device {current_device()}")
        return values._values
    if isinstance(values, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(values, tuple | list):
        return type(values)(bare(one) for one in values)
    return {key: bare(value) for key, value in values.items()} if isinstance(values, dict) else values


def _as_index(index: Any) -> Any:
    """NumPy's arrays are welcome here: CuPy moves them."""
    parts = index if isinstance(index, tuple) else (index,)
    found = tuple(part if isinstance(part, np.ndarray) else bare(part) for part in parts)
    return found if isinstance(index, tuple) else found[0]


def _strict(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*given: Any, **options: Any) -> Any:
        return wrap(function(*bare(given), **bare(options)))

    return call


class Cupy(ModuleType):
    """The module, with ``count`` devices of ``free`` bytes.

    Attributes
    ----------
    moved : Counter
        Arrays that were moved to each device.
    launched : Counter
        Kernels that ran on each device.
    """

    ndarray = EmulatedArray

    def __init__(self, count: int, free: int) -> None:
        super().__init__("cupy")
        self.moved: Counter[int] = Counter()
        self.launched: Counter[int] = Counter()
        self.free = free

        class Device:
            def __init__(self, number: int) -> None:
                assert 0 <= number < count, f"device {number} of {count}"
                self.number = number

            def __enter__(self) -> None:
                self.before = current_device()
                _here.device = self.number

            def __exit__(self, *_: object) -> None:
                _here.device = self.before

        class CUDARuntimeError(RuntimeError):
            pass

        class OutOfMemoryError(MemoryError):
            pass

        runtime = SimpleNamespace(
            memGetInfo=lambda: (self.free, 1 << 36), getDeviceCount=lambda: count, CUDARuntimeError=CUDARuntimeError
        )
        memory = SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
        self.cuda = SimpleNamespace(Device=Device, runtime=runtime, memory=memory)
        pool = SimpleNamespace(free_bytes=lambda: 0, free_all_blocks=lambda: None)
        self.get_default_memory_pool = lambda: pool

    def asarray(self, array: Any, dtype: Any = None) -> EmulatedArray:
        if isinstance(array, EmulatedArray) and array.device == current_device():
            return wrap(np.asarray(array._values, dtype)) if dtype is not None else array
        self.moved[current_device()] += 1
        values = array._values if isinstance(array, EmulatedArray) else array
        return EmulatedArray(np.array(values, dtype), current_device())

    array = asarray

    def asnumpy(self, array: Any) -> np.ndarray:
        return array.get() if isinstance(array, EmulatedArray) else np.asarray(array)

    def RawModule(self, *, code: str, options: tuple[str, ...]) -> Any:
        assert all(option.startswith(("-I", "-D")) for option in options)
        (path,) = re.findall(r'^#line 1 "(.+)\.cu"$', code, flags=re.MULTILINE)
        return SimpleNamespace(get_function=functools.partial(self._function, Path(path).name))

    def _function(self, name: str, kernel: str) -> Callable[..., None]:
        if host.compiler() is None:
            pytest.skip("g++ is not installed, so CUDA sources cannot be emulated")
        run = host.function(name, kernel)

        def call(grid: Any, block: Any, arguments: tuple[Any, ...], shared_mem: int = 0) -> None:
            plain = tuple(one if isinstance(one, np.generic) else bare(one) for one in arguments)
            with _one_kernel_at_a_time:
                run(grid, block, plain, shared_mem)
                self.launched[current_device()] += 1

        return call

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(np, name)
        return value if isinstance(value, type) or not callable(value) else _strict(value)


@contextlib.contextmanager
def emulated_gpus(count: int, *, free: int = 1 << 33) -> Iterator[Cupy]:
    """Let ``import cupy`` give ``count`` devices within the block; skip a test that launches a kernel where there is no g++."""
    with pytest.MonkeyPatch.context() as patch:
        cupy = Cupy(count, free)
        patch.setitem(sys.modules, "cupy", cupy)
        fft = ModuleType("cupyx.scipy.fft")
        for name in (
            "fft",
            "ifft",
            "rfft",
            "irfft",
            "fftn",
            "ifftn",
            "rfftn",
            "irfftn",
            "rfft2",
            "irfft2",
            "fft2",
            "ifft2",
        ):
            setattr(fft, name, _strict(getattr(scipy.fft, name)))
        for name, module in (("cupyx", None), ("cupyx.scipy", None), ("cupyx.scipy.fft", fft)):
            patch.setitem(sys.modules, name, module or ModuleType(name))
        _forget_kernels()
        try:
            yield cupy
        finally:
            _forget_kernels()


def _forget_kernels() -> None:
    """Let the next kernel be compiled anew: by this module, or no longer by it."""
    _source.function.cache_clear()
    _source._module.cache_clear()
