"""How the suite shares a machine: ``make test`` starts a worker for each core, each with one thread, long files first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.patience import pytest_timeout_cancel_timer, pytest_timeout_set_timer  # noqa: F401 - hooks

#: Files that take longest, or compile most of what others load from Numba's cache: a worker must not begin one at the end.
FIRST = (
    "tests/workflow/test_tiny_run.py",
    "tests/search/test_cold_and_warm_cache.py",
    "tests/workflow/test_specimens.py",
    "tests/workflow/test_fetched_run.py",
    "tests/workflow/test_inputs.py",
    "tests/ctf/test_estimate_ctf_xmipp.py",
    "tests/ctf/test_estimators_against_truth.py",
    "tests/ctf/test_estimate_ctf_ctffind.py",
    # after the longest, because they use the tiny run that the first file makes
    "tests/workflow/test_recipe.py",
    "tests/workflow/test_results_know_their_inputs.py",
    "tests/workflow/test_configurations.py",
    "tests/initial_volume/test_initial_relion_sgd.py",
    "tests/reconstruction/test_reconstruct.py",
    "tests/kernels/test_poses.py",
    "tests/kernels/test_pose_steps.py",
    "tests/poses/test_refine_optics.py",
    "tests/search/exhaustive/test_search.py",
)

if "PYTEST_XDIST_WORKER" in os.environ:
    # threads that wait for the slowest of them leave the core to the other worker; OpenMP reads this when it starts
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of ``FIRST`` first, so that workers (``--no-loadscope-reorder``) end together."""
    place = {name: i for i, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.nodeid.split("::")[0], len(FIRST)))


@pytest.fixture(scope="session", autouse=True)
def _one_thread_a_worker() -> Iterator[None]:
    """Where workers share the cores, a test has two threads only where it asks for them."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    import numba
    import scipy.linalg  # noqa: F401 - a limit holds for the libraries that are loaded
    from threadpoolctl import threadpool_limits

    numba.set_num_threads(1)
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def cupy(request: pytest.FixtureRequest) -> Iterator[Any]:
    """CuPy's module: emulated in host memory, and the real one where a kernel runs."""
    if request.param == "emulated":
        from tests.emulated_cupy import emulated_gpus

        with emulated_gpus(1) as module:
            yield module
        return
    from cryopipe.kernels.devices import gpu_unavailable_reason

    if reason := gpu_unavailable_reason():
        pytest.skip(f"no CUDA kernel can run here: {reason}")
    import cupy as module

    yield module
