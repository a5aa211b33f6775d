"""What all rules have in common: log, benchmark, threads, resources and parameters. They follow from the name of the step.

A rule of a step states its inputs and outputs. `complete_rules` adds the rest while Snakemake reads the rule files. It calls
the functions to which Snakemake's grammar compiles the directives. A directive that a rule states itself takes precedence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryopipe.config.declaration.costs import ASKED
from cryopipe.steps import Step, steps
from cryopipe.workflow.costs.prediction import Costs
from cryopipe.workflow.devices import gpu_count
from cryopipe.workflow.plan import Plan


def complete_rules(workflow: Any, plan: Plan) -> None:
    """Give every rule that has the name of a step the directives of that step.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow
        The object ``workflow`` of the Snakefile.
    plan : Plan
        The plan of the run.
    """
    read_rule = workflow.rule
    costs = Costs(plan)

    def rule(name: str | None = None, **where: Any) -> Callable[[Any], Any]:
        register = read_rule(name=name, **where)
        step = steps().get(name or "")

        def completed(info: Any) -> Any:
            return register(_completed(info, step, workflow, plan, costs) if step is not None else info)

        return completed

    workflow.rule = rule


def offer_gpus(workflow: Any, plan: Plan) -> None:
    """Let as many GPU jobs run at a time as this machine has GPUs, unless the command line or a profile says how many.

    Nothing is offered where there is none, where the run is on the CPU, or where a cluster gives the jobs their GPUs.
    Without an offer Snakemake sets no limit; a job that asks for a GPU then finds out itself that there is none.
    """
    if workflow.local_exec and "gpu" not in workflow.global_resources and plan.config.run.device != "cpu":
        gpus = gpu_count()
        if gpus:
            workflow.register_resource("gpu", gpus)


def _completed(info: Any, step: Step, workflow: Any, plan: Plan, costs: Costs) -> Any:
    place = "/".join([step.stage, step.name, *(["{run}"] if step.runs else []), *(["{batch}"] if step.batched else [])])
    own_params = info.params[1] if info.params else {}
    own_resources = info.resources[1] if info.resources else {}
    for directive in (
        workflow.log(f"logs/{place}.log"),
        workflow.benchmark(f"benchmarks/{place}.tsv"),
        workflow.threads(step.threads),
        workflow.resources(**_resources(step, plan, costs) | own_resources),
        workflow.params(**_params(step, plan) | own_params),
    ):
        info = directive(info)
    return info


def _resources(step: Step, plan: Plan, costs: Costs) -> dict[str, Any]:
    """Return the resources as functions of batch, threads and attempt. They are not parameters, so they re-run nothing."""

    def asked(resource: str) -> Callable[..., int]:
        def amount(wildcards: Any, threads: int, attempt: int) -> int:
            name = _name(step, wildcards)
            return costs.asked(name, wildcards.get("batch", ""), threads=threads, attempt=attempt)[resource]

        return amount

    gpus = plan.gpus(step.name)
    names = [name for name in ASKED if gpus or name != "gpu_memory_mb"] if step.cost is not None else []
    return {"gpu": gpus} | {name: asked(name) for name in names}


def _name(step: Step, wildcards: Any) -> str:
    return f"{step.name}/{wildcards.run}" if step.runs else step.name


def _params(step: Step, plan: Plan) -> dict[str, Any]:
    """Return the parameters for Snakemake's change detection: plain builtins, or functions of the wildcards that return such."""
    return {
        "step": lambda wildcards: plan.params(_name(step, wildcards), batch=wildcards.get("batch", "")),
        "run": lambda wildcards: plan.run(_name(step, wildcards)),
        "code": plan.code(step.name),
    }
