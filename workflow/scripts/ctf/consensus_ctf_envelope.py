from cryopipe.ctf import consensus_ctf_envelope
from cryopipe.workflow import run_step

run_step(snakemake, consensus_ctf_envelope)
