from cryopipe.refinement import refine_homogeneous
from cryopipe.workflow import run_step

run_step(snakemake, refine_homogeneous)
