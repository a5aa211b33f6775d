"""``cryopipe doctor``: whether the kernels of the pipeline give right numbers on this machine, and on which device."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import psutil

from cryopipe import __version__
from cryopipe.selftest import checks, machine


def doctor() -> int:
    """Print machine, device and self-test; return 1 if a kernel gives wrong numbers."""
    memory = psutil.virtual_memory()
    print(f"cryopipe {__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(f"CPU: {_processor()}, {len(os.sched_getaffinity(0))} cores usable, {memory.total / 2**30:.1f} GiB memory, "
          f"{memory.available / 2**30:.1f} GiB free")  # fmt: skip
    for name in ("numpy", "scipy", "numba", "snakemake", "cupy-cuda12x", "cupy-cuda13x"):
        try:
            print(f"  {name} {version(name)}")
        except PackageNotFoundError:
            continue
    for line in machine.device_facts():
        print(line)
    failed = 0
    print(f"\n{'check':<34}{'device':<8}{'seconds':>9}  result")
    for row in checks.run():
        failed += not row.passed
        print(f"{row.name:<34}{row.device:<8}{row.seconds:>9.2f}  {'ok' if row.passed else 'WRONG'}  {row.detail}")
    print(
        "\nall checks passed" if not failed else f"\n{failed} checks failed: do not trust the results of this machine"
    )
    return 1 if failed else 0


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as stream:
            return next(line.split(":", 1)[1].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
