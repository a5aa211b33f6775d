from cryopipe.initial_volume import initial_relion_sgd
from cryopipe.workflow import run_step

run_step(snakemake, initial_relion_sgd)
