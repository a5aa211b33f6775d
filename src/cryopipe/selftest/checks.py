"""Compare every kernel with its float64 formula. ``cryopipe doctor`` prints the result.

The inputs are chosen so that a closed formula gives the right result without a second implementation. The full comparison is
in ``tests/kernels``.
"""

from __future__ import annotations

import pkgutil
import time
from collections.abc import Iterable, Iterator

import cryopipe.kernels
from cryopipe.kernels import cpu
from cryopipe.kernels.devices import gpu_unavailable_reason
from cryopipe.selftest import fourier, gain, images, motion, scattering, spectra, volumes
from cryopipe.selftest.machine import measure_ceilings
from cryopipe.selftest.row import Check, Row, mover

CHECKS: tuple[Check, ...] = tuple(
    check for module in (fourier, volumes, images, spectra, gain, motion, scattering) for check in module.CHECKS
)


def kernels() -> list[str]:
    """Return the names of all kernels: the modules of `cryopipe.kernels` that have a CPU side of the same name.

    A kernel in the folder of a family is ``family.kernel``.
    """
    return sorted(set(_modules(cryopipe.kernels.__path__)) & set(_modules(cpu.__path__)))


def _modules(folders: Iterable[str], prefix: str = "") -> Iterator[str]:
    """Yield the names of the modules below the folders of a package, relative to it."""
    for found in pkgutil.iter_modules(folders):
        if found.ispkg:
            yield from _modules([f"{folder}/{found.name}" for folder in folders], f"{prefix}{found.name}.")
        else:
            yield prefix + found.name


def run() -> list[Row]:
    """Check every kernel on the CPU and, if there is one, on the GPU, and measure the speed of both.

    Raises
    ------
    RuntimeError
        A kernel has no check.
    """
    if missing := set(kernels()) - {check.kernel for check in CHECKS}:
        raise RuntimeError(
            f"the self-test has no check for {', '.join(sorted(missing))}. Add one to cryopipe.selftest."
        )
    rows = [*check_kernels("cpu"), *measure_ceilings("cpu")]
    if gpu_unavailable_reason() is None:
        rows += [*check_kernels("gpu"), *measure_ceilings("gpu")]
    return rows


def check_kernels(device: str) -> Iterator[Row]:
    """Yield one row for each check: the largest error against the formula, relative to the size of the result."""
    move = mover(device)
    for check in CHECKS:
        if device == "gpu" and not check.on_gpu:
            continue
        start = time.perf_counter()
        error = check.error(move)
        seconds = time.perf_counter() - start
        detail = f"error {error:.1e}, limit {check.limit:.0e}"
        yield Row(f"{check.kernel}: {check.what}", device, error <= check.limit, seconds, detail, error)
