"""How much memory the particles of a job may take: as configured, or else a share of the free memory."""

from __future__ import annotations

import os
from pathlib import Path

#: by default, the share of the memory that is free when a job starts; the rest is for maps and for other jobs
SHARE = 0.5
_GROUPS = Path("/sys/fs/cgroup")


def particle_memory_bytes(memory_GB: float | None) -> int | None:
    """Return the budget of a job's particles in bytes, or None if neither the configuration nor the machine states one."""
    if memory_GB is not None:
        return int(memory_GB * 1e9)
    free = free_memory_bytes()
    return None if free is None else int(SHARE * free)


def free_memory_bytes() -> int | None:
    """Return how much memory this job can still take: the least of machine, control group and SLURM allocation."""
    found = [free for free in (_machine(), *_groups(), _slurm()) if free is not None]
    return min(found) if found else None


def _machine(path: str = "/proc/meminfo") -> int | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)


def _groups() -> list[int]:
    """Return what is left of the limits of this process's control group and of all above it (version 2)."""
    try:
        own = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip().lstrip("/")
    except OSError:
        return []
    left, folder = [], _GROUPS / own
    for group in (folder, *folder.parents):
        try:
            left.append(max(0, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())))
        except (OSError, ValueError):  # not a group, or "max": no limit
            continue
    return left


def _slurm() -> int | None:
    """Return the allocation in bytes. SLURM states it in MB for the node or for each CPU."""
    if per_node := os.environ.get("SLURM_MEM_PER_NODE"):
        return int(per_node) << 20
    per_cpu, cpus = os.environ.get("SLURM_MEM_PER_CPU"), os.environ.get("SLURM_CPUS_ON_NODE")
    return (int(per_cpu) << 20) * int(cpus) if per_cpu and cpus else None
