"""The recipe of CONTRIBUTING.md, "A new picker in six files", followed word by word in a copy of the project."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cryopipe.io.star import read_table
from tests.workflow.conftest import ROOT

pytestmark = pytest.mark.workflow
#: What `cryopipe.config.generate --fix` writes; nobody edits it.
GENERATED = {
    "config/config.schema.json",
    "config/config.default.yaml",
    "docs/parameters.md",
    "README.md",
    "docs/architecture.md",
}
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "results", ".snakemake", ".*_cache", "*.egg-info", ".hypothesis")
#: What a run does before it picks: the tiny run of the other tests has done it with the same code.
DONE_BEFORE = ("simulation", "movies", "ctf", "manifest.txt", ".snakemake", "logs", "benchmarks")


def steps_of_the_recipe() -> list[tuple[str, str, str]]:
    """``[(file, where in it, text)]``, where: "" for a new file, else "at the end", "above <line>", "below <line>"."""
    recipe = (ROOT / "CONTRIBUTING.md").read_text().split("## A new picker in six files")[1]
    place = r"(New file|In) `([^`]+)`(?:, (at the end|above|below)(?: `([^`]+)`)?)?:"
    found = re.findall(place + r"\n\n```\w+\n(.*?)```", recipe, re.DOTALL)
    return [(file, " ".join(filter(None, (where, line))), text) for _, file, where, line, text in found]


def follow(project: Path, file: str, where: str, text: str) -> None:
    path = project / file
    if not where:
        assert not path.exists(), f"{file} is there already"
        path.write_text(text)
        return
    before = path.read_text()
    if where == "at the end":
        path.write_text(before.rstrip("\n") + "\n" + text)
        return
    how, line = where.split(" ", 1)
    assert before.count(line) == 1, f"{line!r} is not once in {file}"
    path.write_text(before.replace(line, text + line if how == "above" else f"{line}\n{text}".rstrip("\n")))


def run(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CRYOPIPE_")}
    environment["PYTHONPATH"] = f"{project / 'src'}{os.pathsep}{project}"
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env=environment,
        text=True,
        capture_output=True,
        timeout=1800,
        check=False,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("recipe") / "cryopipe"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
    for step in steps_of_the_recipe():
        follow(copy, *step)
    done = run(copy, "cryopipe.config.generate", "--fix")
    assert done.returncode == 0, done.stderr
    return copy


def test_six_files_are_edited_and_no_other(project: Path) -> None:
    edited = {file for file, _, _ in steps_of_the_recipe()}
    assert len(edited) == 6
    changed = {
        str(path.relative_to(project))
        for path in project.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
        and (not (original := ROOT / path.relative_to(project)).exists() or original.read_bytes() != path.read_bytes())
    }  # fmt: skip
    assert changed - GENERATED == edited


def test_the_picker_passes_the_tests_that_every_step_passes(project: Path) -> None:
    for command in (
        ("pytest", "tests/layout", "-k", "pick_grid or table or block or class", "-q", "-n0", "-p", "no:cacheprovider"),
        ("pytest", "tests/picking/test_pick_grid.py", "-q", "-n0", "-p", "no:cacheprovider"),
        ("cryopipe.config.generate",),
        ("ruff", "check", "--no-cache", "src/cryopipe/picking", "src/cryopipe/config", "tests/picking"),
    ):
        done = run(project, *command)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.timeout(1800)
def test_the_picker_is_run_as_a_branch_counted_cited_and_shown(
    project: Path, tiny_run: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    before, _ = tiny_run
    folder = project / "results" / "tiny"
    folder.mkdir(parents=True)
    for name in DONE_BEFORE:
        copy = shutil.copytree if (before / name).is_dir() else shutil.copy2
        copy(before / name, folder / name)
    done = run(project, "snakemake", "--configfile", "config/test/tiny.yaml", "--cores", "2")
    assert done.returncode == 0, done.stderr[-6000:]
    ran = set(re.findall(r"^\[.*?\] +(\w+)", done.stderr, flags=re.MULTILINE))
    assert "pick_grid" in ran
    assert "align_movies" not in ran, "a picker changes nothing before it"

    tables = sorted(folder.glob("picking/pick_grid/batch_*_coordinates.star"))
    assert len(tables) == 2
    assert sum(len(read_table(table, "coordinates").rows) for table in tables) > 20
    numbers = json.loads((folder / "report/report/report.json").read_text())
    rows = {row["step"]: row for row in numbers["counts"]["steps"]}
    assert rows["pick_grid"]["unit"] == "micrographs"
    assert rows["pick_grid"]["in"] == rows["pick_log"]["in"] > 0
    assert numbers["parameters"]["pick_grid"]["particle_diameter_A"] == 125
    page = (folder / "report/report/report.html").read_text()
    assert "<b>pick_grid</b>: Nyquist 1928" in page
    # its coordinates do not go on: the map is that of pick_shell's, bit for bit
    for name in ("run_half1_class001_unfil.mrc", "run_class001.mrc"):
        ours = (folder / "refinement/refine_homogeneous" / name).read_bytes()
        assert ours == (before / "refinement/refine_homogeneous" / name).read_bytes(), name
