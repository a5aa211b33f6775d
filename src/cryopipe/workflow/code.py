"""A digest of the code behind a step, so that a changed algorithm re-runs the steps that use it and no others."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import itertools
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def code_digest(module: str) -> str:
    """Return a digest of ``module`` (dotted name) and of every cryopipe module that it imports, directly or not.

    The declared costs of steps do not count, since no result depends on them.
    """
    content = hashlib.sha256()
    for name in sorted(_closure(module)):
        content.update(name.encode() + b"\0" + without_costs(_source(name)))
        for kernel in _cuda_sources(name):
            content.update(kernel.read_bytes())
    return content.hexdigest()[:16]


def without_costs(source: bytes) -> bytes:
    """Return the source of a module without the costs of its steps (`cryopipe.config.declaration.declare.Cost`)."""
    if b"Cost(" not in source:
        return source
    starts = list(itertools.accumulate(map(len, source.splitlines(keepends=True)), initial=0))
    spans = [
        (starts[node.lineno - 1] + node.col_offset, starts[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Cost"
    ]
    for start, end in sorted(spans, reverse=True):
        source = source[:start] + source[end:]
    return source


@cache
def _closure(module: str) -> frozenset[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(_imports(name))
    return frozenset(seen)


@cache
def _imports(module: str) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(_source(module))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(n for n in names if n.split(".")[0] == "cryopipe" and _path(n))


@cache
def _path(module: str) -> Path | None:
    base = PACKAGE.joinpath(*module.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.exists():
            return path
    return None


@cache
def _source(module: str) -> bytes:
    path = _path(module)
    if path is None:
        raise ModuleNotFoundError(f"{module}: {PACKAGE} has no such module")
    return path.read_bytes()


def _cuda_sources(module: str) -> list[Path]:
    """Return the CUDA sources beside the public module of a kernel, which Python's imports do not show."""
    kernels = PACKAGE / "kernels"
    return sorted((kernels / "cuda").glob("*.cu*")) if module.startswith("cryopipe.kernels") else []


def installed(module: str) -> bool:
    """Tell whether ``module`` can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None
