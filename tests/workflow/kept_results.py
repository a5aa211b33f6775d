"""Jobs of a finished run, done once more with something changed, to see what would be made again and what is kept.

Nothing is computed: where an item is worked on, or a checkpoint is looked for, the job is told so and goes no further.
"""

from __future__ import annotations

import ast
import importlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from cryopipe import fingerprint as rule
from cryopipe import items
from cryopipe.context import Context
from cryopipe.errors import CryopipeError
from cryopipe.items import Rejection
from cryopipe.workflow.code import PACKAGE, _closure
from cryopipe.workflow.step import params_model

#: What a job says instead of items where it refuses the changed input, so that nothing old can be used.
REFUSED = "(the job refuses)"
CHECKPOINT = "(the checkpoint)"
#: Modules that are the rule, or hand on the folder of a job.
_RULE = {"cryopipe.context", "cryopipe.items", "cryopipe.fingerprint"}


class CheckpointLookedFor(Exception):
    """Raised with the stamp of the checkpoint that a job looks for."""


@dataclass(frozen=True)
class Job:
    """One job of a finished run; paths are relative to the run's folder, which is the working directory."""

    step: str
    module: ModuleType
    inputs: dict[str, Any]
    outputs: dict[str, Path]
    params: dict[str, Any]
    work_dir: Path
    code: str = ""
    seed: int = 0
    stamp: str = field(default="", compare=False)

    def with_params(self, **changed: Any) -> Job:
        """Return the job with other parameters."""
        return replace(self, params=self.params | changed)


def job_of(step: str, module: ModuleType, folder: str) -> Job | None:
    """Return the first job of a step of the run in the working directory, None where the run has none."""
    for path in sorted(Path(folder).rglob("*.provenance.json")):
        record = json.loads(path.read_text())
        if record["step"] == step:
            made = record["job"]
            inputs = {k: [Path(p) for p in v] if isinstance(v, list) else Path(v) for k, v in made["inputs"].items()}
            outputs = {name: Path(path) for name, path in made["outputs"].items()}
            work_dir = Path(made["work_dir"])
            return Job(step, module, inputs, outputs, record["params"], work_dir, record["code"], record["seed"])
    return None


def keeps_results(module: str) -> bool:
    """Tell whether a step keeps anything in its folder of work."""
    names = set()
    for name in _closure(module) - _RULE:
        path = PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
        if path.is_file() and not name.startswith("cryopipe.workflow"):
            tree = ast.parse(path.read_text())
            names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return bool(names & {"work_dir", "process_items"})


def made_again(job: Job, *, files_read: set[Path] | None = None) -> set[str]:
    """Return the items that a job would make again, given what its folder of work holds.

    Parameters
    ----------
    job : Job
        Its ``stamp``, where it has one, is that of the checkpoint of the undisturbed run.
    files_read : set of Path, optional
        The first item is worked on in earnest, with nothing kept, and the files that the job reads are put here.
    """
    again: set[str] = set()
    original = items._attempt

    def attempt(name: str, item: Any, work: Any, context: Context) -> Any:
        again.add(name)
        if files_read is not None and len(again) == 1:
            return original(name, item, work, context)
        return Rejection(name, "quarantined", "not made")

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        kept = Path(folder) / "work"
        if files_read is None:
            shutil.copytree(job.work_dir, kept)
        stack.enter_context(unchanged([*job.outputs.values()]))
        stack.enter_context(mock.patch.object(items, "_attempt", attempt))
        for module in list(sys.modules.values()):
            name = getattr(module, "__name__", "")
            asks = getattr(module, "fingerprint", None) is rule.fingerprint
            if asks and name.startswith("cryopipe.") and name not in _RULE:
                stack.enter_context(mock.patch.object(module, "fingerprint", _look_for))
        if files_read is not None:
            stack.enter_context(listening(files_read))
        quiet = logging.getLogger("cryopipe.kept_results")
        quiet.setLevel(logging.CRITICAL)
        context = Context(job.step, kept, seed=job.seed, threads=1, max_failed_fraction=1.0, code=job.code, log=quiet)
        try:
            params = params_model(job.module).model_validate(job.params)
            job.module.main(dict(job.inputs), dict(job.outputs), params, context)
        except CheckpointLookedFor as found:
            return set() if str(found) == job.stamp else {CHECKPOINT, str(found)}
        except (CryopipeError, OSError):
            again = again or {REFUSED}
    return again


def _look_for(*facts: Any, **options: Any) -> str:
    raise CheckpointLookedFor(rule.fingerprint(*facts, **options))


@contextmanager
def unchanged(paths: list[Path]) -> Iterator[None]:
    """Bring files back to what they were, times included."""
    before = {path: (path.read_bytes(), path.stat()) for path in paths if path.is_file()}
    try:
        yield
    finally:
        for path, (content, state) in before.items():
            if not path.exists() or path.read_bytes() != content or path.stat().st_mtime_ns != state.st_mtime_ns:
                path.write_bytes(content)
                os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


_listeners: list[set[Path]] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _listeners:
        return
    path, _, flags = arguments
    if isinstance(path, str | Path) and isinstance(flags, int) and flags & os.O_ACCMODE == os.O_RDONLY:
        _listeners[-1].add(Path(path))


sys.addaudithook(_hear)


@contextmanager
def listening(heard: set[Path]) -> Iterator[None]:
    """Collect the files of the working directory that are opened for reading inside the block."""
    everything: set[Path] = set()
    _listeners.append(everything)
    try:
        yield
    finally:
        _listeners.pop()
        here = Path.cwd().resolve()
        inside = {path.resolve() for path in everything if path.resolve().is_relative_to(here)}
        heard |= {path.relative_to(here) for path in inside if path.is_file()}


def import_of(module: str) -> ModuleType:
    """Return a module by its name."""
    return importlib.import_module(module)
