from cryopipe.validation import validate_model
from cryopipe.workflow import run_step

run_step(snakemake, validate_model)
