"""Beside each output: what went in (digests), the parameters, seed, versions and device that made it."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cryopipe.context import Context
from cryopipe.io.atomic import atomic_write

LIBRARIES = ("cryopipe", "numpy", "scipy", "numba", "pandas", "mrcfile", "tifffile", "gemmi", "snakemake", "cupy")
#: Files above this size are digested by their size, first and last block: whole stacks would cost more than many a step.
WHOLE_FILE_LIMIT = 64 << 20
BLOCK = 8 << 20


def write_provenance(
    *,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    params: Mapping[str, Any],
    context: Context,
    code: str,
    seconds: float,
) -> None:
    """Write ``<output>.provenance.json`` beside every output file."""
    record = {
        "step": context.step,
        "inputs": {str(path): file_digest(path) for path in _paths(inputs)},
        "params": dict(params),
        "seed": context.seed,
        "code": code,
        "device": context.device,
        "threads": context.threads,
        "seconds": round(seconds, 3),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: found for name in LIBRARIES if (found := _version(name))},
    }
    for path in _paths(outputs):
        text = json.dumps(record | {"output": path.name, "digest": file_digest(path)}, indent=1, ensure_ascii=False)
        atomic_write(path.with_name(path.name + ".provenance.json"), text + "\n")


def file_digest(path: Path) -> str:
    """Return ``sha256:<hex>`` of a file; of a large one ``sha256-ends:<size>:<hex>`` over its first and last 8 MiB."""
    size = path.stat().st_size
    content = hashlib.sha256()
    with path.open("rb") as stream:
        if size <= WHOLE_FILE_LIMIT:
            while block := stream.read(BLOCK):
                content.update(block)
            return f"sha256:{content.hexdigest()}"
        content.update(stream.read(BLOCK))
        stream.seek(size - BLOCK)
        content.update(stream.read(BLOCK))
    return f"sha256-ends:{size}:{content.hexdigest()}"


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
