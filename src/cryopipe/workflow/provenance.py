"""The provenance file beside each output: digests of the inputs, parameters, seed, versions, device and resources used."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cryopipe.context import Context
from cryopipe.fingerprint import file_digest
from cryopipe.io.atomic import atomic_write
from cryopipe.workflow.costs.usage import usage

LIBRARIES = ("cryopipe", "numpy", "scipy", "numba", "pandas", "mrcfile", "tifffile", "gemmi", "snakemake", "cupy")


def write_provenance(
    *,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    params: Mapping[str, Any],
    context: Context,
    code: str,
    seconds: float,
) -> None:
    """Write ``<output>.provenance.json`` beside every output file.

    Parameters
    ----------
    inputs, outputs : mapping
        ``{name: path or list of paths}`` as in the rule.
    params : mapping
        The step's parameters as plain builtins.
    context : Context
        Step, seed, device, threads and folder of work of the job.
    code : str
        Digest of the code behind the step.
    seconds : float
        Wall time of the job, s.
    """
    record = {
        "step": context.step,
        "inputs": {str(path): file_digest(path) for path in _paths(inputs)},
        "job": {"inputs": _names(inputs), "outputs": _names(outputs), "work_dir": str(context.work_dir)},
        "params": dict(params),
        "seed": context.seed,
        "code": code,
        "device": context.device,
        "threads": context.threads,
        "seconds": round(seconds, 3),
        **usage(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: found for name in LIBRARIES if (found := _version(name))},
    }
    for path in _paths(outputs):
        text = json.dumps(record | {"output": path.name, "digest": file_digest(path)}, indent=1, ensure_ascii=False)
        atomic_write(path.with_name(path.name + ".provenance.json"), text + "\n")


def _names(files: Mapping[str, Any]) -> dict[str, Any]:
    """Return the files by their names in the rule. With the parameters, this is enough to repeat the job."""
    return {name: list(map(str, path)) if isinstance(path, list) else str(path) for name, path in files.items()}


def _paths(files: Mapping[str, Any]) -> Iterable[Path]:
    for value in files.values():
        for path in value if isinstance(value, list) else [value]:
            if Path(path).is_file():
                yield Path(path)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
