"""What this process has used so far, measured by itself: samples from outside miss peaks and the last seconds."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path


def usage() -> dict[str, float]:
    """Return the CPU time, the part of it that compiled kernels took, and the largest resident memory.

    Kernels are compiled once on a machine and then kept, so the time of compilation is not a property of the step.
    """
    from cryopipe.workflow.costs.compiler import watch_compiler  # numba is slow to import and only jobs need it

    return {
        "cpu_seconds": round(_cpu_seconds(), 3),
        "compile_seconds": round(watch_compiler().seconds, 3),
        "max_rss_MB": round(peak_memory_MB(), 1),
    }


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def peak_memory_MB(status: str = "/proc/self/status") -> float:
    """Return the largest resident memory so far, in MB of 10⁶ bytes.

    The figure of Linux (VmHWM) is that of this program alone. The figure of getrusage also counts what its parent held.
    """
    try:
        lines = Path(status).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
