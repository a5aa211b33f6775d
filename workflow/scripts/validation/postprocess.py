from cryopipe.validation import postprocess
from cryopipe.workflow import run_step

run_step(snakemake, postprocess)
