from cryopipe.movies import align_movies
from cryopipe.workflow import run_step

run_step(snakemake, align_movies)
