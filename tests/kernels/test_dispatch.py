"""The choice of an implementation and the checks that all kernels share."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from cryopipe.kernels import _dispatch, devices
from cryopipe.kernels.gain import ranks
from cryopipe.kernels.spectra import phases
from cryopipe.kernels.volumes import division


class FakeCupyArray:
    """Looks like a CuPy array to the dispatch: that is all it asks."""

    __cuda_array_interface__ = None


FakeCupyArray.__module__ = "cupy._core.core"


def test_numpy_arrays_choose_the_cpu_and_cupy_arrays_choose_cuda() -> None:
    assert _dispatch.backend_of(a=np.zeros(1), b=None) == "cpu"
    assert _dispatch.backend_of(a=FakeCupyArray(), b=None) == "cuda"


def test_a_mix_of_numpy_and_cupy_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"mixed \(images on cpu, ctf on cuda\)"):
        _dispatch.backend_of(images=np.zeros(1), ctf=FakeCupyArray())


def test_what_is_neither_is_refused() -> None:
    with pytest.raises(TypeError, match="images must be a NumPy or a CuPy array, not list"):
        _dispatch.backend_of(images=[1, 2])


def test_gpu_available_agrees_with_the_reason_it_gives() -> None:
    reason = devices.gpu_unavailable_reason()
    assert devices.gpu_available() == (reason is None)
    if reason is not None:
        assert len(reason) > 10


def test_the_number_of_threads_is_limited_inside_the_block_alone() -> None:
    before = numba.get_num_threads()
    with _dispatch.cpu_threads(1):
        assert numba.get_num_threads() == 1
    assert numba.get_num_threads() == before
    with pytest.raises(ValueError, match="at least 1"), _dispatch.cpu_threads(0):
        pass


def test_shapes_and_types_are_named_in_the_refusal() -> None:
    with pytest.raises(TypeError, match="ctf must be float32, not int64"):
        _dispatch.check("ctf", np.zeros(3, np.int64), np.float32, (3,))
    with pytest.raises(ValueError, match=r"ctf must have shape \(any, 4\), not \(2, 3\)"):
        _dispatch.check("ctf", np.zeros((2, 3), np.float32), np.float32, (None, 4))


def test_a_kernel_without_a_cuda_side_refuses_arrays_of_the_gpu() -> None:
    _dispatch.check_on_cpu(values=np.zeros(1), weights=None)
    with pytest.raises(TypeError, match="on the CPU alone: pass values as NumPy arrays"):
        _dispatch.check_on_cpu(values=FakeCupyArray())


def test_a_kernel_of_a_family_names_the_array_that_does_not_fit() -> None:
    cube, curve, pixel = np.zeros((5, 5, 3), np.complex64), np.ones(2, np.float32), np.zeros(1, np.int32)
    with pytest.raises(TypeError, match="weight must be float32, not float64"):
        division.divide(cube, np.zeros((5, 5, 3)), slice(0, 5), curve, curve, padding=1, least_share=0.5)
    with pytest.raises(ValueError, match=r"turns must have shape \(2, 2\)"):
        phases.shift_spectra(np.zeros((2, 1), np.complex64), np.zeros((3, 2)), pixel, pixel, 1)
    with pytest.raises(TypeError, match="frame must be integers"):
        ranks.cumulative_counts(np.zeros((2, 2)), 0, 1)
