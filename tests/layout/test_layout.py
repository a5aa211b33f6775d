"""The house keeps its shape: one name a step, everywhere; imports run downward; every rule is complete."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from cryopipe.config.declaration.base import Params
from cryopipe.config.declaration.declare import DECLARATIONS
from cryopipe.steps import steps
from tests.conftest import FIRST
from tests.workflow.configurations import LAST_STEPS, steps_that_run

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
SIDE = {"config", "steps", "io", "errors", "context", "fingerprint", "items"}
#: side rooms that know others than the errors
SIDE_OF = {"steps": {"config"}, "fingerprint": {"context"}, "items": {"io", "context", "fingerprint"}}
#: what Numba compiles functions with, and where compiled functions are: the exception decodes a file format, beside its reader
COMPILERS = {"njit", "jit", "prange", "vectorize", "guvectorize", "stencil", "cfunc"}
COMPILED = (SOURCE / "kernels" / "cpu", SOURCE / "io" / "movie_files" / "eer.py")
#: libraries that one package alone may know
PRIVATE = {"starfile": "io", "mrcfile": "io", "tifffile": "io", "imagecodecs": "io", "snakemake": "workflow"}


def all_steps() -> dict[str, str]:
    return {step.name: step.stage for step in steps().values()}


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
def test_a_step_has_one_name_for_its_rule_module_and_config_block(step: str, stage: str) -> None:
    assert rules()[step][0] == stage
    assert (SOURCE / stage / f"{step}.py").exists()
    assert "def main(" in (SOURCE / stage / f"{step}.py").read_text()


def test_one_script_serves_all_rules() -> None:
    assert [path.name for path in (ROOT / "workflow" / "scripts").rglob("*.*")] == ["run_step.py"]


def test_every_declared_class_is_a_block_of_the_configuration_and_every_parameter_class_of_a_step_is_declared() -> None:
    assert {step.params for step in steps().values()} == set(DECLARATIONS)
    named = {cls for cls in _subclasses(Params) if (cls.__doc__ or "").startswith("Step ``")}
    assert named <= set(DECLARATIONS), "put a Declaration above the class and an entry into the section of its stage"


def _subclasses(cls: type) -> set[type]:
    return {below for sub in cls.__subclasses__() for below in {sub, *_subclasses(sub)}}


@pytest.fixture(scope="module")
def steps_that_are_run() -> set[str]:
    # tests/workflow/test_configurations.py runs them and sees that each of these steps leaves something
    return {step.split("/")[0] for name in LAST_STEPS for step in steps_that_run(name)}


@pytest.mark.parametrize("step", steps())
def test_some_configuration_of_the_tests_runs_the_step(step: str, steps_that_are_run: set[str]) -> None:
    assert step in steps_that_are_run, f"add {step} to a configuration in config/test/ that tests run as far as it"


@pytest.mark.parametrize("step", steps())
def test_a_step_that_counts_items_says_which_it_did_not_pass_on(step: str) -> None:
    lists = {"rejected="} & set(re.findall(r"\b\w+=", rules()[step][1].split("output:")[1]))
    assert bool(lists) == (steps()[step].counts is not None), (
        f"{step} counts {steps()[step].counts}: with a unit its rule has an output rejected, without one it has none"
    )


@pytest.mark.parametrize("step", steps())
def test_a_reference_has_a_title_and_a_doi(step: str) -> None:
    # a step without any states so: Declaration has no default for references
    for text, doi in steps()[step].references:
        assert re.match(r".+ \d{4}, .+", text), text
        assert re.match(r"10\.\d{4,}/\S+$", doi), doi


def test_every_rule_is_a_step() -> None:
    assert set(rules()) == set(all_steps())


@pytest.mark.parametrize("rule", rules())
def test_a_rule_says_what_it_reads_and_leaves_and_nothing_that_its_declaration_says(rule: str) -> None:
    stage, text = rules()[rule]
    folder = f"{stage}/{rule}/{{run}}/" if steps()[rule].runs else f"{stage}/{rule}/"
    outputs = re.findall(r'"([^"]+)"', text.split("output:")[1].split("script:")[0])
    assert outputs
    assert all(path.startswith(folder) for path in outputs), "outputs lie in <stage>/<step>/[<run>/]"
    assert all(("{batch}" in path) == steps()[rule].batched for path in outputs)
    assert text.split("script:")[1].split()[0] == '"../scripts/run_step.py"'
    for word in ("log:", "benchmark:", "threads:", "mem_mb", "shell:", "run:", "message:"):
        assert word not in text, f"rule {rule}: {word} is not written in a rule"


@pytest.mark.parametrize("rule", rules())
def test_a_rule_writes_no_path_of_another_stage(rule: str) -> None:
    stage, text = rules()[rule]
    paths = re.findall(r'"(\w+)/[^"]*"', text.replace("../", ""))
    assert set(paths) <= {stage, "scripts"}, "ask the ports for what another stage makes"


@pytest.mark.parametrize("rule", rules())
def test_what_a_step_declares_that_it_makes_is_an_output_of_its_rule(rule: str) -> None:
    outputs = re.findall(r'"([^"]+)"', rules()[rule][1].split("output:")[1].split("script:")[0])
    prefix = "{batch}_" if steps()[rule].batched else ""
    left = {path.rsplit("/", 1)[1].removeprefix(prefix) for path in outputs}
    assert set(steps()[rule].makes.values()) <= left


def test_rules_are_short() -> None:
    lines = sorted(rule_lines())
    assert lines[len(lines) // 2] <= 14


def rule_lines() -> list[int]:
    """Lines of each rule, comments and empty lines left out."""
    text = "\n".join(path.read_text() for path in RULES)
    parts = re.split(r"^\s*rule \w+:\n", text, flags=re.MULTILINE)[1:]
    return [
        1 + sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in part.split("\n")) for part in parts
    ]


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
            allowed = {"errors"} | SIDE_OF.get(package, set())
            # it writes the pages of the docs, one of which explains the columns of io
            allowed |= {"io"} if path == SOURCE / "config" / "generate.py" else set()
            assert other in allowed, f"{path}: the side room {package} imports {name}"
        elif other not in SIDE:
            same_floor = FLOORS[package] == FLOORS[other] == 6 or {package, other} <= ENGINES
            assert FLOORS[other] < FLOORS[package] or same_floor, (
                f"{path} (floor {FLOORS[package]}) imports {name} (floor {FLOORS[other]})"
            )
        assert not (FLOORS.get(package) == 1 and other in SIDE - {"errors"}), (
            f"{path}: kernels know arrays only, not {name}"
        )


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_library_of_files_or_workflow_is_known_in_one_package_alone(path: Path) -> None:
    package = path.relative_to(SOURCE).parts[0]
    for name in imports(path):
        owner = PRIVATE.get(name.split(".")[0])
        assert owner is None or owner == package, f"{path} imports {name}; only cryopipe.{owner} may"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_functions_are_compiled_in_the_kernels_alone(path: Path) -> None:
    if any(path.is_relative_to(place) for place in COMPILED):
        return
    tree = ast.walk(ast.parse(path.read_text()))
    attributes = {
        f"numba.{node.attr}"
        for node in tree
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in {"numba", "nb"}
    }
    found = (attributes | imports(path)) & {f"numba.{name}" for name in COMPILERS}
    assert not found, f"{path} uses {found}: the loop belongs into kernels/cpu, behind a function of kernels"


def test_a_step_never_imports_another_step() -> None:
    steps = {f"cryopipe.{stage}.{step}" for step, stage in all_steps().items()}
    for step, stage in all_steps().items():
        others = steps - {f"cryopipe.{stage}.{step}"}
        shared = imports(SOURCE / stage / f"{step}.py") & others
        assert not shared, f"{step} imports {shared}; steps meet through files"


def test_the_test_files_that_are_started_first_exist() -> None:
    assert [name for name in FIRST if not (ROOT / name).is_file()] == []
