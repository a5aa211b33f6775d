from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopipe.config.validation import ValidateTruth
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.imaging.geometry import matrix_to_euler, rotation_from_vector
from cryopipe.imaging.transform import invert_hand
from cryopipe.io.mrc import read_volume, write_volume
from cryopipe.io.star import StarTable, write_table
from cryopipe.projection.particle_spectra import load_particle_spectra
from cryopipe.reconstruction.reconstruct import Reconstruction
from cryopipe.validation import validate_truth as step
from cryopipe.validation.truth_matching import match_particles
from tests.simulated_particles import Dataset, simulate, truth_rows

POSE_SD_DEG, SHIFT_SD_A = 1.0, 0.9


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return simulate(tmp_path_factory.mktemp("truth"), count=200, snr=0.1)


def refined_inputs(dataset: Dataset, folder: Path, *, mirrored: bool = False) -> dict[str, Path]:
    """Write what a refinement with known pose errors would leave, in either hand."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    count = len(dataset.table)
    rotations = rotation_from_vector(np.radians(POSE_SD_DEG) * rng.normal(size=(count, 3))) @ dataset.rotations
    shifts = dataset.shifts_px + SHIFT_SD_A / dataset.pixel_size_A * rng.normal(size=(count, 2))
    images = load_particle_spectra(dataset.table, radius=31)
    inputs = {}
    for half in (0, 1):
        sums = Reconstruction.empty(64, 31, symmetry="O", expected_slices=count)
        rows = np.arange(half, count, 2)
        sums.insert(images.subset(rows), rotations[rows], shifts[rows], np.full(32, 2.0))
        volume = sums.solve()
        inputs[f"half{half + 1}"] = folder / f"half{half + 1}.mrc"
        write_volume(inputs[f"half{half + 1}"], invert_hand(volume) if mirrored else volume, dataset.pixel_size_A)
    angles = matrix_to_euler(np.diag([-1.0, -1, 1]) @ rotations if mirrored else rotations)
    rows = dataset.table.rows.assign(
        rlnAngleRot=angles[:, 0],
        rlnAngleTilt=angles[:, 1],
        rlnAnglePsi=angles[:, 2],
        rlnOriginXAngst=shifts[:, 0] * dataset.pixel_size_A,
        rlnOriginYAngst=shifts[:, 1] * dataset.pixel_size_A,
        rlnDefocusU=dataset.table.rows["rlnDefocusU"] + 100,
        rlnDefocusV=dataset.table.rows["rlnDefocusV"] + 100,
    )
    inputs["particles"] = folder / "refined.star"
    write_table(inputs["particles"], dataset.table.with_rows(rows))
    inputs["truth_particles"] = folder / "truth_particles.star"
    write_truth(inputs["truth_particles"], dataset, truth_rows(dataset))
    inputs["truth_map"] = dataset.folder / "truth.mrc"
    return inputs


def write_truth(path: Path, dataset: Dataset, rows: pd.DataFrame) -> None:
    write_table(path, StarTable("particles", dataset.table.optics, rows.assign(rlnOpticsGroup=1)))


def run(inputs: dict[str, Path], folder: Path) -> dict:
    outputs = {"summary": folder / "truth.json", "fsc": folder / "fsc.star", "true_poses_map": folder / "true.mrc"}
    context = Context("validate_truth", folder, threads=2, log=logging.getLogger("test"))
    step.main(dict(inputs), outputs, ValidateTruth(symmetry="O", particle_diameter_A=125, match_radius_A=30), context)
    assert read_volume(outputs["true_poses_map"])[0].shape == (64, 64, 64)
    return json.loads(outputs["summary"].read_text())["truth"]


def test_planted_errors_come_back(dataset: Dataset, tmp_path: Path) -> None:
    numbers = run(refined_inputs(dataset, tmp_path), tmp_path)
    # three normal angles of 1 degree: the length's median is 1.54; two of 0.9 Å: 1.06; sampling of 200 medians 6 %
    assert numbers["pose_error_deg"]["median"] == pytest.approx(1.54 * POSE_SD_DEG, rel=0.15)
    assert numbers["centre_error_A"]["median"] == pytest.approx(1.18 * SHIFT_SD_A, rel=0.15)
    assert numbers["defocus_error_A"]["median"] == pytest.approx(100)
    assert numbers["matched"] == numbers["particles"] == 200
    assert numbers["precision"] == numbers["recall"] == 1
    assert not numbers["mirrored"]
    assert numbers["fsc05_true_poses_A"] <= numbers["fsc05_A"] < 1.3 * numbers["fsc05_true_poses_A"]
    assert numbers["fsc05_true_poses_A"] < 9


def test_the_other_hand_gives_the_same_numbers(dataset: Dataset, tmp_path: Path) -> None:
    same = run(refined_inputs(dataset, tmp_path / "same"), tmp_path / "same")
    other = run(refined_inputs(dataset, tmp_path / "other", mirrored=True), tmp_path / "other")
    assert other["mirrored"]
    # inversion moves voxels only: float32 rounding of the angles and of the file
    assert other["fsc05_A"] == pytest.approx(same["fsc05_A"], abs=0.02)
    assert other["pose_error_deg"]["median"] == pytest.approx(same["pose_error_deg"]["median"], abs=0.01)


def test_iron_loaded_particles_and_false_picks_are_counted(dataset: Dataset, tmp_path: Path) -> None:
    inputs = refined_inputs(dataset, tmp_path)
    truth = truth_rows(dataset)
    truth.loc[:19, "crpKind"] = "iron"
    # ten true particles are missing from the truth: their picks are false ones
    write_truth(inputs["truth_particles"], dataset, truth.iloc[:190].reset_index(drop=True))
    numbers = run(inputs, tmp_path)
    assert numbers["matched"] == 190
    assert numbers["unwanted_share"] == pytest.approx(20 / 190, abs=1e-4)
    assert numbers["precision"] == pytest.approx(170 / 200, abs=1e-4)


def test_every_true_particle_is_matched_once_and_by_the_nearest_pick() -> None:
    items = np.array(["a", "a", "a", "b"], dtype=object)
    picks = np.array([[0.0, 0], [1.0, 0], [50.0, 0], [0.0, 0]])
    true_items = np.array(["a", "a"], dtype=object)
    true = np.array([[0.8, 0], [70.0, 0]])
    found = match_particles(items, picks, true_items, true, radius_A=10)
    assert found.truth.tolist() == [-1, 0, -1, -1]
    assert found.found.tolist() == [True, False]


def test_a_truth_that_lies_nowhere_near_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    inputs = refined_inputs(dataset, tmp_path)
    truth = truth_rows(dataset).assign(crpItem="another")
    write_truth(inputs["truth_particles"], dataset, truth)
    with pytest.raises(InputError, match="none of 200 particles"):
        run(inputs, tmp_path)


def test_a_map_whose_centre_is_not_the_truth_s_has_no_errors_of_centres_for_that(dataset: Dataset) -> None:
    """Without symmetry a map may lie anywhere in its box: centres are then those of the map's own origin in each view."""
    shift_xyz_px = np.array([3.0, -2.0, 1.5])
    truth = truth_rows(dataset)
    seen = (dataset.rotations @ shift_xyz_px)[:, :2] * dataset.pixel_size_A
    rows = dataset.table.rows.assign(**{f"rlnAngle{name}": truth[f"rlnAngle{name}"] for name in ("Rot", "Tilt", "Psi")})
    table = dataset.table.with_rows(rows)
    place = truth[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy() * dataset.pixel_size_A
    count = np.arange(len(rows))
    joined = step.Joined(table, truth, step.Matching(count, np.ones(len(rows), bool)), place, place + seen, place)
    frame = step.Frame(np.eye(3), shift_xyz_px, False)
    numbers = step.particle_errors(joined, frame, pixel_size_A=dataset.pixel_size_A, symmetry="C1", kinds=("apo",))
    assert numbers["centre_error_A"]["p90"] < 1e-6
    assert numbers["pose_error_deg"]["p90"] < 1e-3
