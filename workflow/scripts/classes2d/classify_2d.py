from cryopipe.classes2d import classify_2d
from cryopipe.workflow import run_step

run_step(snakemake, classify_2d)
