"""Wrong astigmatism in the table: the step finds it, writes it, and makes a better map with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryopipe.imaging.fsc import fourier_shell_correlation, resolution_at
from cryopipe.imaging.masks import soft_sphere
from cryopipe.imaging.optics import CtfParameters, from_table
from cryopipe.io.mrc import read_volume
from cryopipe.io.star import StarTable, read_table
from cryopipe.poses.ctf import changed_parameters
from tests.refinement.step import refine_table
from tests.simulated_particles import Dataset, simulate

BOX, PIXEL_A = 96, 2.0


def components(parameters: CtfParameters) -> np.ndarray:
    """Return (U - V)/2 cos 2a and (U - V)/2 sin 2a, [n, 2]."""
    u, v, angle = (
        np.asarray(value, np.float64)
        for value in (parameters.defocus_u_A, parameters.defocus_v_A, parameters.defocus_angle_deg)
    )
    twice = 2 * np.deg2rad(angle)
    return np.stack([(u - v) / 2 * np.cos(twice), (u - v) / 2 * np.sin(twice)], axis=1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return simulate(tmp_path_factory.mktemp("astigmatic"), count=300, snr=0.1, box=BOX, pixel_size_A=PIXEL_A)


@pytest.fixture(scope="module")
def stated(dataset: Dataset) -> StarTable:
    """Return the table with an error of the astigmatism that each of its five micrographs has of its own."""
    rows = dataset.table.rows
    names, member = np.unique(rows["rlnMicrographName"], return_inverse=True)
    error = np.zeros((len(rows), 3))
    error[:, 1:] = np.random.default_rng(8).normal(0, 350, (len(names), 2))[member]
    wrong = changed_parameters(dataset.parameters, error)
    columns = {
        "rlnDefocusU": wrong.defocus_u_A,
        "rlnDefocusV": wrong.defocus_v_A,
        "rlnDefocusAngle": wrong.defocus_angle_deg,
    }
    return dataset.table.with_rows(rows.assign(**columns))


def refined(dataset: Dataset, table: StarTable, folder: Path, *, astigmatism: bool) -> tuple[float, StarTable]:
    """Refine and return the resolution against the truth and the particles."""
    outputs = refine_table(
        dataset,
        table,
        folder,
        start_A=15.0,
        offset_range_A=12.0,
        refine_astigmatism=astigmatism,
        defocus_start_resolution_A=9.0,
    )
    mask = soft_sphere(BOX, 36, edge_px=4)
    volume = 0.5 * (read_volume(outputs["half1"])[0] + read_volume(outputs["half2"])[0])
    curve = fourier_shell_correlation(volume * mask, dataset.truth * mask)
    return float(resolution_at(curve, 0.5, BOX, PIXEL_A)), read_table(outputs["particles"], "particles")


def test_the_step_finds_it_and_the_map_gains(dataset: Dataset, stated: StarTable, tmp_path: Path) -> None:
    found = {}
    for wanted in (False, True):
        folder = tmp_path / str(wanted)
        folder.mkdir()
        found[wanted] = refined(dataset, stated, folder, astigmatism=wanted)
    place = {name: i for i, name in enumerate(dataset.table.rows["rlnImageName"])}
    errors = {}
    for wanted, (_, table) in found.items():
        truth = components(dataset.parameters)[[place[name] for name in table.rows["rlnImageName"]]]
        errors[wanted] = np.sqrt(np.mean((components(from_table(table.with_optics())) - truth) ** 2))
    print("rms error of the components", errors, "FSC 0.5", {wanted: one[0] for wanted, one in found.items()})
    assert errors[False] > 200
    # measured: 453 and 14 Å; 4.82 and 4.30 Å
    assert errors[True] < 40
    assert found[True][0] < found[False][0]
