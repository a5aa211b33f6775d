"""The inputs of the report's rule, made of what its sections read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryopipe.report.section import Reads
from cryopipe.steps import steps as all_steps
from cryopipe.workflow.plan import Plan


def report_inputs(plan: Plan, rules: Any, wildcards: Any = None) -> dict[str, list[str]]:
    """Return ``{name: files}`` of all that the sections of the report read in this run.

    Parameters
    ----------
    plan : Plan
        Of the run: its steps, batches and ports.
    rules : object
        Snakemake's ``rules``: the outputs of a step are those of the rule of its name.
    wildcards : object
        Snakemake gives them to every function of inputs; the report has none.
    """
    # the sections import what draws them, which no other job needs: not when the Snakefile is read
    from cryopipe.report.sections import SECTIONS

    reads = {part.name: part for section in SECTIONS for part in section.reads}
    found = {name: files(part, plan, rules) for name, part in reads.items()}
    return {name: paths for name, paths in found.items() if paths}


def files(reads: Reads, plan: Plan, rules: Any) -> list[str]:
    """Return the files of one name, in the order of steps and batches."""
    if reads.port:
        step, output = _ports(plan)[reads.port]
        return _expanded(plan, rules, step, output)
    steps = [step for step in plan.steps_of_run if reads.takes(all_steps()[step])]
    return [path for step in steps for path in _expanded(plan, rules, step, reads.output)]


def _expanded(plan: Plan, rules: Any, step: str, output: str) -> list[str]:
    made: Mapping[str, Any] = dict(getattr(rules, step).output.items())
    if output not in made:
        return []
    patterns = [made[output]] if isinstance(made[output], str) else list(made[output])
    batches = list(plan.batches) if plan.in_batches(step) else [""]
    return [str(pattern).replace("{batch}", batch) for batch in batches for pattern in patterns]


def _ports(plan: Plan) -> dict[str, tuple[str, str]]:
    first = "import_micrographs" if plan.source == "micrographs" else "screen_motion"
    return {
        "micrographs": (first, "micrographs"),
        "micrographs_with_ctf": (plan.ctf_passes[-1], "micrographs"),
        "coordinates": ("pick_log", "coordinates"),
        "refined_particles": ("refine_homogeneous", "particles"),
    }
