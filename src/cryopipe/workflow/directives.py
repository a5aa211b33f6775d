"""What all rules have in common: log, benchmark, threads, resources and parameters, from the name of the step.

A rule of a step says what it reads and what it leaves. `complete_rules` gives it the rest while Snakemake reads the rule files,
through the functions that Snakemake's own grammar compiles the directives to. What a rule says itself goes before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryopipe.steps import Step, steps
from cryopipe.workflow.plan import Plan


def complete_rules(workflow: Any, plan: Plan) -> None:
    """Let every rule that is called like a step have the directives of that step.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow
        What the Snakefile knows by this name.
    plan : Plan
        The plan of the run.
    """
    read_rule = workflow.rule

    def rule(name: str | None = None, **where: Any) -> Callable[[Any], Any]:
        register = read_rule(name=name, **where)
        step = steps().get(name or "")

        def completed(info: Any) -> Any:
            return register(_completed(info, step, workflow, plan) if step is not None else info)

        return completed

    workflow.rule = rule


def _completed(info: Any, step: Step, workflow: Any, plan: Plan) -> Any:
    place = "/".join([step.stage, step.name, *(["{run}"] if step.runs else []), *(["{batch}"] if step.batched else [])])
    own_params = info.params[1] if info.params else {}
    own_resources = info.resources[1] if info.resources else {}
    for directive in (
        workflow.log(f"logs/{place}.log"),
        workflow.benchmark(f"benchmarks/{place}.tsv"),
        workflow.threads(step.threads),
        workflow.resources(**plan.resources(step.name) | own_resources),
        workflow.params(**_params(step, plan) | own_params),
    ):
        info = directive(info)
    return info


def _params(step: Step, plan: Plan) -> dict[str, Any]:
    """Return the parameters that change detection looks at: plain builtins, or functions of the wildcards that return such."""

    def name(wildcards: Any) -> str:
        return f"{step.name}/{wildcards.run}" if step.runs else step.name

    return {
        "step": lambda wildcards: plan.params(name(wildcards), batch=wildcards.get("batch", "")),
        "run": lambda wildcards: plan.run(name(wildcards)),
        "code": plan.code(step.name),
    }
