"""RELION opens our particles and reconstructs from our poses what we reconstruct."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cryopipe.imaging.filters import low_pass
from cryopipe.imaging.geometry import matrix_to_euler
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.io.mrc import read_volume
from cryopipe.io.star import write_table
from cryopipe.projection.particle_spectra import load_particle_spectra
from cryopipe.reconstruction.reconstruct import Reconstruction
from tests.simulated_particles import simulate

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(
        shutil.which("relion_reconstruct") is None, reason="RELION (Debian's package relion) is not installed"
    ),
]


def run(*command: str, folder: Path) -> str:
    return subprocess.run(command, cwd=folder, text=True, capture_output=True, check=True).stdout


@pytest.mark.parametrize("symmetry", ["O", "D2"])
def test_relion_reconstructs_the_same_map_from_our_table(tmp_path: Path, symmetry: str) -> None:
    data = simulate(tmp_path, count=150, snr=0.2, symmetry=symmetry)
    angles = matrix_to_euler(data.rotations)
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
    columns = (*angles.T, *(data.shifts_px * data.pixel_size_A).T)
    table = data.table.with_rows(data.table.rows.assign(**dict(zip(names, columns, strict=True))))
    write_table(tmp_path / "posed.star", table)
    printed = run("relion_star_printtable", "posed.star", "data_particles", "_rlnAngleRot", folder=tmp_path)
    assert np.allclose([float(line) for line in printed.split()], angles[:, 0], atol=1e-4)
    run("relion_reconstruct", "--i", "posed.star", "--o", "theirs.mrc", "--ctf", "--sym", symmetry, folder=tmp_path)
    theirs, pixel_size_A = read_volume(tmp_path / "theirs.mrc")
    assert pixel_size_A == pytest.approx(data.pixel_size_A)

    images = load_particle_spectra(table, radius=31, threads=1)
    sums = Reconstruction.empty(64, 31, symmetry=symmetry, expected_slices=len(images))
    sums.insert(images, data.rotations, data.shifts_px, np.full(32, 2.0))
    ours = sums.solve(threads=1)
    assert len(symmetry_operators(symmetry)) == {"O": 24, "D2": 4}[symmetry]
    filtered = [low_pass(volume, data.pixel_size_A, 9.0).ravel() for volume in (ours, theirs)]
    # both are least-squares maps of the same data; they differ in gridding and in the weak shells' floor
    assert np.corrcoef(*filtered)[0, 1] > 0.95
