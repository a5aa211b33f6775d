from cryopipe.ctf import estimate_ctf_xmipp
from cryopipe.workflow import run_step

run_step(snakemake, estimate_ctf_xmipp)
