from cryopipe.movies import fetch_movies
from cryopipe.workflow import run_step

run_step(snakemake, fetch_movies)
