"""The choice of the array library."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.imaging import backend


def test_numpy_arrays_scalars_and_none_belong_to_numpy():
    assert backend.array_module(np.zeros(2), 3.0, None) is np
    assert backend.array_module() is np


def test_mixing_arrays_of_host_and_device_is_a_type_error(monkeypatch):
    class DeviceArray:
        """Stands where CuPy's ndarray would: only its type is looked at."""

    module = type("cupy", (), {"ndarray": DeviceArray})
    monkeypatch.setitem(__import__("sys").modules, "cupy", module)
    assert backend.array_module(DeviceArray()) is module
    with pytest.raises(TypeError, match="mixed"):
        backend.array_module(np.zeros(2), DeviceArray())
