"""The refinement step on simulated particles: where its outputs go, and one run of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from cryopipe.config.refinement import RefineHomogeneous
from cryopipe.context import Context
from cryopipe.imaging.filters import low_pass
from cryopipe.io.mrc import write_volume
from cryopipe.io.star import StarTable, write_table
from cryopipe.refinement import refine_homogeneous
from tests.simulated_particles import Dataset

_SUFFIXES = {
    "half1": "half1.mrc",
    "half2": "half2.mrc",
    "map": "map.mrc",
    "mask": "mask.mrc",
    "particles": "particles.star",
    "fsc": "fsc.star",
    "history": "history.tsv",
}


def outputs_in(folder: Path) -> dict[str, Path]:
    """Return the paths of all outputs of the step in a folder."""
    return {name: folder / suffix for name, suffix in _SUFFIXES.items()}


def refine_table(
    dataset: Dataset, table: StarTable, folder: Path, *, start_A: float, **options: Any
) -> dict[str, Path]:
    """Refine a table of the dataset's particles from the true map at ``start_A``; return the paths of the outputs."""
    work = folder / "work"
    work.mkdir(parents=True)
    particles, start = folder / "in.star", folder / "start.mrc"
    write_table(particles, table)
    write_volume(start, low_pass(dataset.truth, dataset.pixel_size_A, start_A), dataset.pixel_size_A)
    params = RefineHomogeneous(
        **(
            {"symmetry": "O", "particle_diameter_A": 125, "initial_lowpass_A": start_A, "mask_start_resolution_A": 12.0}
            | options
        )
    )
    context = Context("refine_homogeneous", work, seed=3, threads=2, log=logging.getLogger("test"))
    outputs = outputs_in(folder)
    refine_homogeneous.main({"particles": particles, "map": start}, outputs, params, context)
    return outputs
