from cryopipe.movies import import_micrographs
from cryopipe.workflow import run_step

run_step(snakemake, import_micrographs)
