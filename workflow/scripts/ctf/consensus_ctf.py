from cryopipe.ctf import consensus_ctf
from cryopipe.workflow import run_step

run_step(snakemake, consensus_ctf)
