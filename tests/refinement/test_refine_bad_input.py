"""What a refinement refuses, by value and with a remedy, before it spends time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopipe.config.refinement import RefineHomogeneous
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.io.mrc import format_image_name, read_stack, write_stack, write_volume
from cryopipe.io.star import write_table
from cryopipe.refinement import refine_homogeneous
from tests.refinement.step import outputs_in
from tests.simulated_particles import Dataset, simulate


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return simulate(tmp_path_factory.mktemp("few"), count=16, snr=0.05)


def with_images(dataset: Dataset, folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> pd.DataFrame:
    """Return the rows of the table with their images changed and written anew."""
    path = dataset.table.rows["rlnImageName"].iloc[0].split("@")[1]
    images, pixel_size_A = read_stack(path)
    write_stack(folder / "changed.mrcs", change(images), pixel_size_A or dataset.pixel_size_A)
    names = [format_image_name(i, folder / "changed.mrcs") for i in range(len(dataset.table))]
    return dataset.table.rows.assign(rlnImageName=names)


def with_a_nan(dataset: Dataset, folder: Path) -> pd.DataFrame:
    """Damage a stack behind the writer's back, which would refuse to write it."""
    rows = with_images(dataset, folder, lambda images: images)
    with (folder / "changed.mrcs").open("r+b") as file:
        file.seek(1024 + 4 * (3 * 64 * 64 + 10 * 64 + 10))
        file.write(np.float32(np.nan).tobytes())
    return rows


CASES: dict[str, tuple[Callable[[Dataset, Path], pd.DataFrame], str]] = {
    "a NaN pixel": (with_a_nan, r"changed\.mrcs.*not finite.*section 4, row 10, column 10"),
    "a rectangular stack": (lambda d, f: with_images(d, f, lambda a: a[:, :, :-2]), r"64 . 62|62 . 64|square"),
    "an odd box": (lambda d, f: with_images(d, f, lambda a: a[:, :-1, :-1]), r"63"),
    "a defocus of zero": (lambda d, f: d.table.rows.assign(rlnDefocusU=0.0, rlnDefocusV=0.0), r"[Dd]efocus"),
    "one particle": (lambda d, f: d.table.rows.iloc[:1], r"too few|one particle|1 particle"),
    "no particle": (lambda d, f: d.table.rows.iloc[:0], r"no particles"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_refined_is_refused_with_its_value(dataset: Dataset, tmp_path: Path, case: str) -> None:
    change, text = CASES[case]
    refused(dataset, change(dataset, tmp_path), tmp_path, dataset.pixel_size_A, text)


def test_a_map_of_another_pixel_size_is_refused_with_both(dataset: Dataset, tmp_path: Path) -> None:
    refused(dataset, dataset.table.rows, tmp_path, dataset.pixel_size_A * 1.01, r"3\.03")


def refused(
    dataset: Dataset, rows: pd.DataFrame, folder: Path, map_pixel_size_A: float, text: str, **options: bool
) -> None:
    """Run the step and see it refuse, leaving no output behind."""
    write_table(folder / "particles.star", dataset.table.with_rows(rows))
    write_volume(folder / "start.mrc", dataset.truth, map_pixel_size_A)
    (folder / "out").mkdir(parents=True, exist_ok=True)
    outputs = outputs_in(folder / "out")
    params = RefineHomogeneous(
        symmetry="O",
        particle_diameter_A=125,
        initial_lowpass_A=20.8,
        offset_range_A=12.0,
        mask_start_resolution_A=12.0,
        **options,
    )
    context = Context("refine_homogeneous", folder / "work", seed=1, threads=2, log=logging.getLogger("test"))
    inputs = {"particles": folder / "particles.star", "map": folder / "start.mrc"}
    with pytest.raises(InputError, match=text):
        refine_homogeneous.main(inputs, outputs, params, context)
    assert not any(path.exists() for path in outputs.values())
