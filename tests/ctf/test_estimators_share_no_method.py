"""Estimators that agree are evidence only where they share no method: the formula of the CTF, and reading and writing."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import cryopipe

SOURCE = Path(cryopipe.__file__).parent
#: The CTF's phase, what is read and written around an estimator, how large a window fits a micrograph, and how a scatter of
#: sectors becomes an error.
SHARED = {f"cryopipe.ctf.{name}" for name in ("defocus", "micrograph", "windows", "sector_errors")}


def reached(module: str) -> set[str]:
    """Return the modules of the CTF stage that ``module`` imports, directly or not."""
    found, waiting = set(), {module}
    while waiting:
        name = waiting.pop()
        found.add(name)
        tree = ast.parse(SOURCE.joinpath(*name.split(".")[1:]).with_suffix(".py").read_text())
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
        names = {str(node.module) for node in nodes} | {f"{n.module}.{a.name}" for n in nodes for a in n.names}
        mine = {n for n in names if n.startswith("cryopipe.ctf.")}
        waiting |= {n for n in mine if SOURCE.joinpath(*n.split(".")[1:]).with_suffix(".py").is_file()} - found
    return found


def test_two_estimators_share_no_method() -> None:
    estimators = sorted(f"cryopipe.ctf.{path.stem}" for path in (SOURCE / "ctf").glob("estimate_ctf_*.py"))
    assert len(estimators) >= 3
    for estimator in estimators:
        assert len(reached(estimator) - SHARED) > 3, estimator  # its own
    for one, other in itertools.combinations(estimators, 2):
        assert reached(one) & reached(other) <= SHARED, (one, other)
