from cryopipe.movies import import_movies
from cryopipe.workflow import run_step

run_step(snakemake, import_movies)
