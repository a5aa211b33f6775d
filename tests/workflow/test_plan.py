"""The plan hands plain builtins to Snakemake, and its code digests see exactly what a step is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cryopipe.errors import ConfigError
from cryopipe.workflow import code
from cryopipe.workflow.code import code_digest
from cryopipe.workflow.plan import CODE_VARIABLE, Plan

ROOT = Path(__file__).parents[2]
PLAIN = (str, int, float, bool, type(None))


def builtins_only(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(k) is str and builtins_only(v) for k, v in value.items())
    if isinstance(value, list):
        return all(builtins_only(v) for v in value)
    return type(value) in PLAIN


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan.of({}, root=ROOT, default="config/config.yaml", results=tmp_path)


def test_what_reaches_snakemakes_change_detection_is_plain(plan: Plan) -> None:
    for step in plan.steps:
        assert builtins_only(plan.params(step)), step
        assert builtins_only(plan.run(step)), step


def test_batches_hold_every_movie_once_and_reach_the_import_step_alone(plan: Plan) -> None:
    files = [path for batch in plan.batches for path in plan.params("import_movies", batch=batch)["paths"]]
    assert files == plan.config.simulation.simulate_movies.movie_paths("simulation/simulate_movies")  # type: ignore[union-attr]
    assert "paths" not in plan.params("align_movies")


def test_a_manifest_is_extended_by_the_planning_process_alone(tmp_path: Path) -> None:
    child = Plan.of({}, root=ROOT, default="config/config.yaml", results=tmp_path, extend=False)
    assert len(child.batches) == 2
    assert not (tmp_path / "manifest.txt").exists()


def test_a_gain_that_is_not_there_is_named_before_any_job() -> None:
    tree = {
        "dataset": {
            "movies": "Makefile", "gain": "nowhere.mrc", "pixel_size_A": 1.0, "voltage_kV": 300, "cs_mm": 2.7,
            "particle_diameter_A": 100, "symmetry": "C1",
        }
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"dataset\.gain: there is no file .*nowhere\.mrc"):
        Plan.of(tree, root=ROOT, default="")


def test_a_digest_changes_with_a_module_the_step_imports_and_with_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {step: code_digest(f"cryopipe.{step}") for step in ("picking.pick_log", "refinement.refine_homogeneous")}
    original = code._source

    def edited(module: str) -> bytes:
        return original(module) + (b"\n# edited" if module == "cryopipe.picking.shell" else b"")

    monkeypatch.setattr(code, "_source", edited)
    after = {step: code_digest(f"cryopipe.{step}") for step in before}
    assert after["picking.pick_log"] != before["picking.pick_log"]
    assert after["refinement.refine_homogeneous"] == before["refinement.refine_homogeneous"]


def test_children_inherit_the_digests_of_the_process_that_planned(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CODE_VARIABLE, '{"pick_log": "as-planned"}')
    assert plan.code("pick_log") == "as-planned"
    assert plan.code("align_movies") == code_digest("cryopipe.movies.align_movies")


def test_only_steps_with_a_gpu_path_ask_for_a_gpu(tmp_path: Path) -> None:
    def plan_for(device: str) -> Plan:
        tree = {"run": {"device": device}, "simulation": {}}
        return Plan.of(tree, root=ROOT, default="", results=tmp_path / device)

    assert plan_for("gpu").gpus("classify_2d") == 1
    assert plan_for("gpu").gpus("pick_log") == 0
    assert plan_for("cpu").gpus("classify_2d") == 0


@pytest.mark.parametrize(
    ("first", "second", "previous", "estimators", "passes"),
    [
        (["ctffind", "gctf"], ["xmipp"], {}, ["ctffind", "gctf", "xmipp"], 2),
        (["gctf"], [], {}, ["gctf"], 1),
        (["gctf"], ["xmipp"], {}, ["ctffind", "gctf", "xmipp"], 2),
        (["gctf"], ["xmipp"], {"previous_from": "gctf"}, ["gctf", "xmipp"], 2),
        (["gctf"], ["xmipp"], {"use_previous": False}, ["gctf", "xmipp"], 2),
        (["xmipp", "ctffind"], [], {}, ["ctffind", "xmipp"], 1),
    ],
)
def test_those_ctf_estimators_run_that_a_consensus_compares_or_that_another_starts_from(
    tmp_path: Path, first: list[str], second: list[str], previous: dict[str, Any], estimators: list[str], passes: int
) -> None:
    tree = {
        "simulation": {},
        "ctf": {
            "estimate_ctf_xmipp": previous,
            "consensus_ctf": {"estimators": first},
            "consensus_ctf_envelope": {"estimators": second},
        },
    }
    plan = Plan.of(tree, root=ROOT, default="", results=tmp_path)
    assert plan.ctf_estimators == [f"estimate_ctf_{name}" for name in estimators]
    assert plan.ctf_passes == ["consensus_ctf", "consensus_ctf_envelope"][:passes]
    assert plan.ctf_branches("consensus_ctf") == [f"estimate_ctf_{name}" for name in first]
    assert plan.ctf_branches("consensus_ctf_envelope") == [*(f"estimate_ctf_{n}" for n in second), "consensus_ctf"]
