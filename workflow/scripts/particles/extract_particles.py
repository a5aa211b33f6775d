from cryopipe.particles import extract_particles
from cryopipe.workflow import run_step

run_step(snakemake, extract_particles)
