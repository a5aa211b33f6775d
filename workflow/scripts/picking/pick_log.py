from cryopipe.picking import pick_log
from cryopipe.workflow import run_step

run_step(snakemake, pick_log)
