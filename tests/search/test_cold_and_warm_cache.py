"""The engines give the same bits from a cold compiler cache, from a warm one, and compiled in another order."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from numba.core.dispatcher import Dispatcher

import cryopipe.imaging
import cryopipe.kernels.cpu
import cryopipe.poses
import cryopipe.projection
import cryopipe.reconstruction
import cryopipe.search

SCRIPT = Path(__file__).parents[1] / "engine_digests.py"
PACKAGES = (
    cryopipe.kernels.cpu,
    cryopipe.imaging,
    cryopipe.poses,
    cryopipe.projection,
    cryopipe.reconstruction,
    cryopipe.search,
)


def digests(cache: Path, *arguments: str) -> dict[str, str]:
    """Run the engines in a process of their own with this compiler cache."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "NUMBA_NUM_THREADS": "2"}
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def compiled_functions() -> dict[str, Any]:
    """Return every compiled function of the engines by its full name."""
    found: dict[str, Any] = {}
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, Dispatcher):
                    found[f"{value.py_func.__module__}.{value.py_func.__qualname__}"] = value
    return found


def test_the_bits_of_the_engines_do_not_depend_on_what_was_compiled_before(tmp_path: Path) -> None:
    cold = digests(tmp_path)
    assert list(tmp_path.rglob("*.nbc")), "nothing was cached, so the second run would prove nothing"
    assert digests(tmp_path) == cold
    # engines that are compiled after each other in another order, by a process that finds nothing in its cache
    assert digests(tmp_path / "other", "reversed") == cold


@pytest.mark.parametrize("name", sorted(n for n, f in compiled_functions().items() if f.targetoptions.get("fastmath")))
def test_a_function_that_may_round_as_the_compiler_likes_is_compiled_once_only(name: str) -> None:
    every = compiled_functions()
    function = every[name]
    if function.targetoptions.get("inline") == "always" or function.targetoptions.get("forceinline"):
        return  # no function of its own in what runs
    assert not function.targetoptions.get("parallel"), "its loop body would exist twice: see kernels/cpu/threads.py"
    callers = [
        other
        for other, one in every.items()
        if any(one.py_func.__globals__.get(used) is function for used in one.py_func.__code__.co_names)
    ]
    assert not callers, "it would exist by itself and within its callers: inline it"


@pytest.mark.parametrize("name", sorted(n for n, f in compiled_functions().items() if f.targetoptions.get("fastmath")))
def test_what_such_a_function_calls_is_inlined_or_says_its_own_arithmetic(name: str) -> None:
    # Numba compiles a callee that says nothing with the flags of its first caller, whichever that was in this process
    every = compiled_functions()
    found, ahead = set(), [name]
    while ahead:
        one = every[ahead.pop()]
        used = {id(one.py_func.__globals__.get(word)) for word in one.py_func.__code__.co_names}
        ahead += [n for n, f in every.items() if id(f) in used and n not in found]
        found.update(ahead)
    unsaid = {n for n in found if not {"inline", "fastmath"} & set(every[n].targetoptions)}
    assert not unsaid, "write fastmath=False, or inline them"
