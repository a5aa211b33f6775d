"""What the steps of a run used, from the provenance beside their outputs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryopipe.config.declaration.costs import JobCost, Prediction
from cryopipe.steps import step_of, steps


def used(folder: Path) -> dict[str, Prediction]:
    """Return ``{step or step/run: what its jobs used together}``, in the order of the data flow.

    CPU time is without the compilation of kernels. A job that went on from its checkpoints states the time of its last try.
    The memory of GPUs is not measured.

    Parameters
    ----------
    folder : Path
        Folder of a run's results.
    """
    found: dict[str, dict[str, JobCost]] = {}
    for path in sorted(folder.glob("*/*/**/*.provenance.json")):
        record = json.loads(path.read_text())
        if "cpu_seconds" in record:
            batch = re.match(r"(batch_\d+)_|", path.name)
            found.setdefault(record["step"], {})[str(batch and batch[1])] = _job(record)
    order = list(steps())
    names = sorted(found, key=lambda name: order.index(step_of(name).name))
    return {name: _with_disk(Prediction.of_jobs(list(found[name].values())), folder, name) for name in names}


def _job(record: Mapping[str, Any]) -> JobCost:
    cpu_seconds = record["cpu_seconds"] - record["compile_seconds"]
    return JobCost(record["max_rss_MB"], cpu_seconds, record["seconds"], 0.0, 0.0)


def _with_disk(jobs: Prediction, folder: Path, name: str) -> Prediction:
    files = (path for path in (folder / step_of(name).stage / name).rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in files if not path.is_symlink())
    return Prediction(jobs.jobs, jobs.memory_MB, jobs.cpu_seconds, jobs.seconds, jobs.gpu_memory_MB, size / 1e6)
