from cryopipe.validation import validate_truth
from cryopipe.workflow import run_step

run_step(snakemake, validate_truth)
