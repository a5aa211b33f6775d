from cryopipe.classes2d import select_classes_2d
from cryopipe.workflow import run_step

run_step(snakemake, select_classes_2d)
