"""The configuration: one definition, clear refusals, derived values, generated files that do not drift."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cryopipe.config import generate
from cryopipe.config.declaration.base import model_in
from cryopipe.config.declaration.declare import BranchOf
from cryopipe.config.declaration.tables import TABLES
from cryopipe.config.derive import facts, resolve
from cryopipe.config.load import load_config, parse_config
from cryopipe.config.model import Config
from cryopipe.errors import ConfigError

ROOT = Path(__file__).parents[2]


def shipped(folder: Path) -> list[Path]:
    """Return the configurations that the folder's README lists and those of tests; others there are a user's own."""
    listed = re.findall(r"^- `([\w./-]+\.yaml)`", (folder / "README.md").read_text(), flags=re.MULTILINE)
    own = [folder / name for name in listed if name != "config.default.yaml"]
    return [*own, *sorted((folder / "test").glob("*.yaml"))]


REAL: dict[str, Any] = {
    "dataset": {
        "movies": "movies/*.tif",
        "pixel_size_A": 0.5,
        "voltage_kV": 300,
        "cs_mm": 2.7,
        "dose_per_frame_e_A2": 1.0,
        "particle_diameter_A": 125,
        "symmetry": "O",
    }
}


@pytest.mark.parametrize("name", [*generate.GENERATED, *TABLES])
def test_generated_files_say_what_the_models_say(name: str) -> None:
    assert name not in generate.drifted(), "run: python -m cryopipe.config.generate --fix"


def test_fix_repairs_a_drifted_file(tmp_path: Path) -> None:
    generate.fix(tmp_path)
    (tmp_path / "docs" / "parameters.md").write_text("edited by hand")
    assert generate.drifted(tmp_path) == ["docs/parameters.md"]
    generate.fix(tmp_path)
    assert generate.drifted(tmp_path) == []


@pytest.mark.parametrize("path", shipped(ROOT / "config"), ids=lambda p: p.stem)
def test_shipped_configurations_are_valid_and_complete(path: Path) -> None:
    config = load_config(path)
    resolve(config)
    jsonschema.validate(yaml.safe_load(path.read_text()), json.loads(generate.schema()))
    schema = "../" * (len(path.relative_to(ROOT / "config").parts) - 1) + "config.schema.json"
    assert path.read_text().startswith(f"# yaml-language-server: $schema={schema}")


def test_a_users_own_file_is_not_taken_for_a_shipped_configuration(tmp_path: Path) -> None:
    shutil.copy(ROOT / "config" / "README.md", tmp_path)
    (tmp_path / "mine.yaml").write_text("no: [configuration")
    listed = [path.name for path in shipped(ROOT / "config") if path.parent.name == "config"]
    assert [path.name for path in shipped(tmp_path)] == listed
    assert len(listed) >= 3


def test_every_configuration_of_the_project_is_listed_in_the_readme() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing tells our files from a user's")
    command = ["git", "ls-files", "--", "config/*.yaml"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {ROOT / name for name in tracked} == {*shipped(ROOT / "config"), ROOT / "config" / "config.default.yaml"}


def test_the_default_file_with_a_dataset_is_the_default_configuration() -> None:
    tree = yaml.safe_load(generate.default_yaml())
    tree["dataset"] |= REAL["dataset"]
    assert parse_config(tree) == parse_config(REAL | {"dataset": tree["dataset"]})


def test_a_typo_in_a_key_is_named_with_the_key_that_was_meant() -> None:
    tree = REAL | {"movies": {"align_movies": {"max_shfit_A": 50}}}
    with pytest.raises(
        ConfigError, match=r"movies\.align_movies\.max_shfit_A: this key is not known; did you mean 'max_shift_A'"
    ):
        parse_config(tree)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pixel_size_A", 5e-11),
        ("voltage_kV", 300_000),
        ("cs_mm", 2.7e7),
        ("pixel_size_A", float("nan")),
        ("voltage_kV", "fast"),
    ],
)
def test_a_value_in_the_wrong_unit_is_refused_with_key_and_value(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"dataset\.{key}: .*\(given: "):
        parse_config({"dataset": REAL["dataset"] | {key: value}})


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)run\.bath_size.*dataset\.cs_mm"):
        parse_config({"dataset": REAL["dataset"] | {"cs_mm": -1}, "run": {"bath_size": 3}})


def test_two_sources_or_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="exactly one of"):
        parse_config({"dataset": REAL["dataset"] | {"micrographs": "*.mrc"}})
    with pytest.raises(ConfigError, match="but none is"):
        parse_config({})


def test_missing_facts_are_listed() -> None:
    with pytest.raises(ConfigError, match=r"dataset\.voltage_kV, dataset\.cs_mm"):
        facts(
            parse_config(
                {"dataset": {"movies": "a", "pixel_size_A": 1.0, "particle_diameter_A": 100, "symmetry": "C1"}}
            )
        )


def test_every_derived_parameter_gets_a_value_and_none_overrides_a_users() -> None:
    config = parse_config(REAL)
    for step, params in resolve(config).items():
        for name, info in type(params).model_fields.items():
            extra = info.json_schema_extra
            optional = ("dataset.cavity_diameter_A", "dataset.dose_per_frame_e_A2", "dataset.model", "dataset.gain")
            if isinstance(extra, dict) and extra.get("derived") and extra["derived"] not in optional:
                assert getattr(params, name) is not None, (
                    f"{step}.{name} is declared as derived, but nothing derives it"
                )
    given = parse_config(REAL | {"report": {"report": {"title": "mine"}}})
    assert resolve(given)["report"].title == "mine"  # type: ignore[attr-defined]


def test_every_parameter_is_documented() -> None:
    def visit(model: type, path: str) -> None:
        for name, info in model.model_fields.items():  # type: ignore[attr-defined]
            inner = model_in(info.annotation)
            if inner is not None:
                visit(inner, f"{path}.{name}")
            else:
                assert info.description, f"{path}.{name} has no documentation"

    visit(Config, "config")


def test_a_file_that_is_not_there_or_not_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml: this is not valid YAML"):
        load_config(tmp_path / "broken.yaml")


def test_a_block_is_laid_over_the_run_of_its_name_and_runs_follow_one_another() -> None:
    config = parse_config(
        REAL | {"ctf": {"consensus_ctf": [{"max_defocus_A": 9e3}, {"run": "envelope", "max_resolution_A": 17}]}}
    )
    defocus, envelope = config.ctf.consensus_ctf
    assert (defocus.run, defocus.max_defocus_A, defocus.start_from) == ("defocus", 9e3, None)
    assert (envelope.max_resolution_A, envelope.estimators, envelope.start_from) == (17, ["xmipp"], "defocus")
    names = [name for name in resolve(config) if name.startswith("consensus_ctf")]
    assert names == ["consensus_ctf/defocus", "consensus_ctf/envelope"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"ctf": {"consensus_ctf": {"max_defocus_A": 9e3}}}, r"ctf\.consensus_ctf: .*\[\{run: defocus\}, \{run: envelope\}\]"),
        ({"ctf": {"consensus_ctf": []}}, r"ctf\.consensus_ctf: at least one run must be given"),
        ({"ctf": {"consensus_ctf": [{"run": "a"}, {"run": "a"}]}}, "two runs are called 'a'"),
        ({"ctf": {"consensus_ctf": [{"run": "a", "start_from": "previous"}]}}, "run a is the first of the list"),
        ({"ctf": {"consensus_ctf": [{"run": "A b"}]}}, r"consensus_ctf\.0\.run: .*\(given: 'A b'\)"),
        ({"ctf": {"consensus_ctf": [{"run": "a", "max_defocs_A": 1}]}}, "did you mean 'max_defocus_A'"),
        ({"picking": {"pick_log": [{}, {}]}}, r"picking\.pick_log: this step is done once"),
        ({"picking": {"pickers": []}}, "pickers is empty, but at least one branch must run"),
        ({"picking": {"pickers": ["pick_lgo"]}}, r"picking\.pickers\.0: .*choose from pick_log.*\(given: 'pick_lgo'\)"),
        ({"picking": {"pickers": ["pick_log", "pick_log"]}}, "pickers must name each branch once"),
        ({"picking": {"coordinates_from": "nobody"}}, r"picking\.coordinates_from: this is not a branch"),
        ({"initial_volume": {"initial_volumes": []}}, "initial_volumes is empty"),
        ({"movies": {"import_movies": {"paths": ["a.tif"]}}}, r"the run fills movies\.import_movies\.paths"),
    ],
)  # fmt: skip
def test_runs_and_branches_that_cannot_be_are_refused_with_key_and_remedy(
    section: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(REAL | section)


def test_an_editor_offers_the_branches_and_no_parameter_that_the_run_fills() -> None:
    made = json.loads(generate.schema())["$defs"]
    assert made["PickingStage"]["properties"]["pickers"]["items"]["enum"] == BranchOf("pickers").labels
    assert "paths" not in made["ImportMovies"]["properties"]
