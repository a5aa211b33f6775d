from cryopipe.ctf import estimate_ctf_gctf
from cryopipe.workflow import run_step

run_step(snakemake, estimate_ctf_gctf)
