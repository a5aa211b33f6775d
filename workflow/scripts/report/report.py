from cryopipe.report import report
from cryopipe.workflow import run_step

run_step(snakemake, report)
