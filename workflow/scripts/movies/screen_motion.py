from cryopipe.movies import screen_motion
from cryopipe.workflow import run_step

run_step(snakemake, screen_motion)
