"""The house rules of the report: a section is one module and one template, and names no single branch of a fan-in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cryopipe.config.load import load_config
from cryopipe.report.inputs import report_inputs
from cryopipe.report.reads import REJECTED
from cryopipe.report.section import Section
from cryopipe.report.sections import SECTIONS
from cryopipe.steps import steps
from cryopipe.workflow.plan import Plan

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "src/cryopipe/report"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_a_section_is_one_module_and_one_template_that_has_its_anchors(section: Section) -> None:
    assert section.build.__module__ == f"cryopipe.report.sections.{section.name}"
    template = (REPORT / f"templates/{section.name}.html.j2").read_text()
    assert re.findall(r'<section id="(\w+)">', template) == list(section.anchors)


def test_every_template_of_a_section_belongs_to_one() -> None:
    frame = {"report", "summary", "macros"}
    assert {path.name.split(".")[0] for path in (REPORT / "templates").glob("*.j2")} == frame | {
        section.name for section in SECTIONS
    }


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_a_section_reads_what_it_needs_and_some_step_makes_it(section: Section) -> None:
    assert set(section.needs) <= {reads.name for reads in section.reads}
    ports = {port for step in steps().values() for port in step.makes}
    assert {reads.port for reads in section.reads} - {REJECTED.port} <= ports


@pytest.mark.parametrize("path", sorted(REPORT.rglob("*.py")), ids=lambda path: str(path.relative_to(REPORT)))
def test_no_module_of_the_report_names_a_branch_of_a_fan_in(path: Path) -> None:
    branches = [step.name for step in steps().values() if step.branch_of]
    assert len(branches) >= 4
    assert not [name for name in branches if name in path.read_text()], "a new branch must need no line in the report"


def test_the_inputs_of_the_rule_are_the_files_of_the_steps_of_this_run_batch_by_batch(tmp_path: Path) -> None:
    plan = Plan(load_config(ROOT / "config/test/tiny.yaml"), root=ROOT, results=tmp_path)
    found = report_inputs(plan.ports)
    estimators = plan.ports.branches("estimators")
    assert len(estimators) >= 2
    assert found["every_ctf_estimates"] == [
        f"ctf/{step}/{batch}_micrographs.star" for step in estimators for batch in plan.batches
    ]
    assert found["gain_summary"] == ["movies/estimate_gain/gain.json"]
    assert "model_summary" not in found  # this run has no atomic model
    assert "truth_summary" in found
    assert not [path for path in found["rejected"] if "import_micrographs" in path]
    assert found["every_deselected_particles"] == ["classes2d/select_classes_2d/rejected.star"]
