from cryopipe.movies import estimate_gain
from cryopipe.workflow import run_step

run_step(snakemake, estimate_gain)
