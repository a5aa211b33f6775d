"""The house keeps its shape: one name a step, everywhere; imports run downward; every rule is complete."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from cryopipe.config.model import Config, SimulationStage, step_params
from tests.conftest import FIRST

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "cryopipe"
RULES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
ENGINES = {"projection", "poses", "search", "reconstruction", "networks"}
#: floor of each package; a module may import from lower floors, its own package and the side rooms
FLOORS = {
    "kernels": 1,
    "imaging": 2,
    **dict.fromkeys(ENGINES, 3),
    "simulation": 3,
    "iteration": 4,
    **dict.fromkeys(
        ["movies", "ctf", "picking", "particles", "classes2d", "initial_volume", "refinement", "validation"], 5
    ),
    **dict.fromkeys(["workflow", "cli", "viewer", "report", "selftest"], 6),
}
SIDE = {"config", "io", "errors", "context", "items"}
#: libraries that one package alone may know
PRIVATE = {"starfile": "io", "mrcfile": "io", "tifffile": "io", "imagecodecs": "io", "snakemake": "workflow"}


def all_steps() -> dict[str, str]:
    config = Config(simulation=SimulationStage())
    return {step: stage for step, (stage, _) in step_params(config).items()}


def rules() -> dict[str, tuple[str, str]]:
    """``{rule: (stage, text)}``."""
    found = {}
    for path in RULES:
        parts = re.split(r"^\s*rule (\w+):\n", path.read_text(), flags=re.MULTILINE)
        found.update({name: (path.stem, text) for name, text in zip(parts[1::2], parts[2::2], strict=True)})
    return found


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"{path}: relative import; write the full name, it tells the floor")
    return names


MODULES = sorted(p for p in SOURCE.rglob("*.py"))


@pytest.mark.parametrize(("step", "stage"), all_steps().items())
def test_a_step_has_one_name_for_its_rule_script_module_and_config_block(step: str, stage: str) -> None:
    assert rules()[step][0] == stage
    assert (SOURCE / stage / f"{step}.py").exists()
    script = (ROOT / "workflow" / "scripts" / stage / f"{step}.py").read_text()
    assert f"from cryopipe.{stage} import {step}" in script
    assert len(script.splitlines()) <= 8
    assert "def main(" in (SOURCE / stage / f"{step}.py").read_text()


def test_every_rule_is_a_step() -> None:
    assert set(rules()) == set(all_steps())


@pytest.mark.parametrize("rule", rules())
def test_a_rule_declares_log_benchmark_threads_and_resources(rule: str) -> None:
    stage, text = rules()[rule]
    for word in ("log:", "benchmark:", "threads:", "mem_mb=", "runtime=", "gpu=", "code=plan.code("):
        assert word in text, f"rule {rule} lacks {word}"
    assert f"scripts/{stage}/{rule}.py" in text
    assert f'"{stage}/{rule}/' in text, "outputs lie in <stage>/<step>/"
    assert "shell:" not in text
    assert "run:" not in text
    assert "message:" not in text


@pytest.mark.parametrize("path", RULES, ids=lambda p: p.stem)
def test_a_rule_file_opens_with_what_the_stage_does_needs_and_leaves(path: Path) -> None:
    head = path.read_text().splitlines()[:3]
    assert head[0].startswith(f"# Stage {path.stem}: ")
    assert "Needs:" in head[1]
    assert "Leaves:" in head[1]
    assert head[2].startswith("# Steps: ")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_run_downward(path: Path) -> None:
    package = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for name in imports(path):
        head, *rest = name.split(".")
        if head != "cryopipe" or not rest or package == "__init__":
            continue
        other = rest[0]
        if other == package or other == "__version__":
            continue
        if package in SIDE:
            allowed = {"errors"} | ({"io", "context"} if package == "items" else set())
            assert other in allowed, f"{path}: the side room {package} imports {name}"
        elif other not in SIDE:
            same_floor = FLOORS[package] == FLOORS[other] == 6 or {package, other} <= ENGINES
            assert FLOORS[other] < FLOORS[package] or same_floor, (
                f"{path} (floor {FLOORS[package]}) imports {name} (floor {FLOORS[other]})"
            )
        assert not (FLOORS.get(package) == 1 and other in {"io", "config", "items", "context"}), (
            f"{path}: kernels know arrays only, not {name}"
        )


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_library_of_files_or_workflow_is_known_in_one_package_alone(path: Path) -> None:
    package = path.relative_to(SOURCE).parts[0]
    for name in imports(path):
        owner = PRIVATE.get(name.split(".")[0])
        assert owner is None or owner == package, f"{path} imports {name}; only cryopipe.{owner} may"


def test_a_step_never_imports_another_step() -> None:
    steps = {f"cryopipe.{stage}.{step}" for step, stage in all_steps().items()}
    for step, stage in all_steps().items():
        others = steps - {f"cryopipe.{stage}.{step}"}
        shared = imports(SOURCE / stage / f"{step}.py") & others
        assert not shared, f"{step} imports {shared}; steps meet through files"


def test_the_test_files_that_are_started_first_exist() -> None:
    assert [name for name in FIRST if not (ROOT / name).is_file()] == []
