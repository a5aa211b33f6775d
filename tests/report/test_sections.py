"""The house rules of the report: a section is one module and one template, and names no single branch of a fan-in."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from cryopipe.config.load import load_config
from cryopipe.report.inputs import report_inputs
from cryopipe.report.section import Section
from cryopipe.report.sections import SECTIONS
from cryopipe.steps import steps
from cryopipe.workflow.plan import Plan

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "src/cryopipe/report"
RULES = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))


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


def test_a_name_means_the_same_files_in_all_sections_and_what_a_section_needs_it_reads() -> None:
    meanings = {}
    for section in SECTIONS:
        assert set(section.needs) <= {reads.name for reads in section.reads}
        for reads in section.reads:
            assert meanings.setdefault(reads.name, reads) == reads


@pytest.mark.parametrize("path", sorted(REPORT.rglob("*.py")), ids=lambda path: str(path.relative_to(REPORT)))
def test_no_module_of_the_report_names_a_branch_of_a_fan_in(path: Path) -> None:
    branches = [step.name for step in steps().values() if step.branch_of]
    assert len(branches) >= 4
    assert not [name for name in branches if name in path.read_text()], "a new branch must need no line in the report"


@pytest.mark.parametrize("step", steps())
def test_what_a_section_reads_of_a_step_is_an_output_of_its_rule(step: str) -> None:
    rule = re.search(rf"rule {step}:\n(.*?)(?=\n\S|\n    rule |\Z)", RULES, flags=re.DOTALL)
    assert rule is not None
    for reads in (reads for section in SECTIONS for reads in section.reads if reads.step == step):
        assert re.search(rf"\b{reads.output}=", rule[1].split("output:")[1]), f"{step} has no output {reads.output}"


class _Rules:
    """Rules as Snakemake shows them: each step has the outputs that these tests ask for."""

    def __getattr__(self, step: str) -> SimpleNamespace:
        stage, batch = steps()[step].stage, "{batch}_" if steps()[step].batched else ""
        names = ("micrographs", "coordinates", "rejected", "summary", "particles", "map")
        return SimpleNamespace(output={name: f"{stage}/{step}/{batch}{name}" for name in names})


def test_the_inputs_of_the_rule_are_the_files_of_the_steps_of_this_run_batch_by_batch(tmp_path: Path) -> None:
    plan = Plan(load_config(ROOT / "config/test/tiny.yaml"), root=ROOT, results=tmp_path)
    found = report_inputs(plan, _Rules())
    assert plan.ctf_estimators
    assert found["estimates"] == [
        f"ctf/{step}/{batch}_micrographs" for step in plan.ctf_estimators for batch in plan.batches
    ]
    assert found["gain"] == ["movies/estimate_gain/summary"]
    assert "model" not in found  # this run has no atomic model, so it does no validate_model
    assert "truth" in found
    assert not [path for path in found["rejected"] if "import_micrographs" in path]
