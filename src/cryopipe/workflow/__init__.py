"""Where steps meet Snakemake: the plan of a run, the running of one step, provenance. Nothing below knows Snakemake."""

from cryopipe.workflow.costs.prediction import Costs
from cryopipe.workflow.directives import complete_rules, offer_gpus
from cryopipe.workflow.lock import claim
from cryopipe.workflow.plan import Plan
from cryopipe.workflow.step import run_step

__all__ = ["Costs", "Plan", "claim", "complete_rules", "offer_gpus", "run_step"]
