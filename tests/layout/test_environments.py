"""The conda environment and the lock file say what pyproject.toml says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def without_extras(requirement: str) -> str:
    return re.sub(r"\[.*?\]", "", requirement).lower()


def test_the_conda_environment_lists_the_requirements_of_the_project() -> None:
    environment = yaml.safe_load((ROOT / "envs" / "cryopipe.yaml").read_text())
    listed = [entry.lower() for entry in environment["dependencies"]]
    assert listed == [f"python{PROJECT['requires-python']}", *map(without_extras, PROJECT["dependencies"])]


def test_the_lock_file_pins_every_requirement() -> None:
    pinned = {
        line.split("==")[0].lower() for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line
    }
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    names = {re.split(r"[<>=\[]", requirement.lower())[0] for requirement in wanted}
    assert names <= pinned, f"not pinned: {names - pinned}; run uv pip compile as CONTRIBUTING.md says"
