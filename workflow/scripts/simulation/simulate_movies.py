from cryopipe.simulation import simulate_movies
from cryopipe.workflow import run_step

run_step(snakemake, simulate_movies)
