"""Weak images of particles at heights of 70 Å: a prior that is wide by decree makes their defoci worse, a learned one not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryopipe.imaging.optics import from_table
from cryopipe.io.star import StarTable, read_table
from tests.refinement.step import refine_table
from tests.simulated_particles import Dataset, simulate

PIXEL_A = 2.0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return simulate(tmp_path_factory.mktemp("heights"), count=200, snr=0.06, box=80, pixel_size_A=PIXEL_A)


def refined(dataset: Dataset, table: StarTable, folder: Path, prior_A: float | None) -> StarTable:
    """Refine by defaults but for the prior and few iterations, and return the particles."""
    outputs = refine_table(
        dataset,
        table,
        folder,
        start_A=10.0,
        offset_range_A=6.0,
        defocus_prior_A=prior_A,
        global_iterations=1,
        max_iterations=5,
    )
    return read_table(outputs["particles"], "particles")


def test_defoci_are_worse_with_a_wide_prior_and_not_with_a_learned_one(dataset: Dataset, tmp_path: Path) -> None:
    rows = dataset.table.rows
    wrong = np.random.default_rng(5).normal(0, 70, len(rows))
    columns = {name: rows[name] + wrong for name in ("rlnDefocusU", "rlnDefocusV")}
    stated = dataset.table.with_rows(rows.assign(**columns))
    place = {name: i for i, name in enumerate(rows["rlnImageName"])}
    error = {}
    for prior_A in (None, 500.0):
        table = refined(dataset, stated, tmp_path / str(prior_A), prior_A)
        index = [place[name] for name in table.rows["rlnImageName"]]
        known = np.asarray(dataset.parameters.defocus_u_A)[index]
        error[prior_A] = np.asarray(from_table(table.with_optics()).defocus_u_A) - known
        spread = table.rows["crpDefocusError"].to_numpy(np.float64)
        print(prior_A, np.sqrt(np.mean(error[prior_A] ** 2)), np.sqrt(np.mean((error[prior_A] / spread) ** 2)))
    unrefined, learned, wide = (np.sqrt(np.mean(one**2)) for one in (wrong, error[None], error[500.0]))
    # as in the chain's demonstration, where 74 Å became 131
    assert wide > 1.2 * unrefined
    assert learned <= unrefined * (1 + 1e-6)
