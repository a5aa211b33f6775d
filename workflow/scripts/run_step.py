from importlib import import_module

from cryopipe.steps import steps
from cryopipe.workflow import run_step

run_step(snakemake, import_module(steps()[snakemake.rule].module))
