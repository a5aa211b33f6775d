"""Particles of a random phantom with known poses, on disk as a step finds them; shared by tests of 3-D methods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cryopipe.imaging.geometry import matrix_to_euler, random_rotations
from cryopipe.imaging.optics import CtfParameters
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.io.mrc import format_image_name, write_stack, write_volume
from cryopipe.io.star import StarTable, make_optics, write_table
from cryopipe.simulation.particle_images import BlobModel, density, image_particles, project, random_shell


@dataclass(frozen=True)
class Dataset:
    """Files and truth of a simulated set; ``shifts_px`` is what has to be applied to centre an image."""

    folder: Path
    table: StarTable
    model: BlobModel
    truth: np.ndarray
    rotations: np.ndarray
    shifts_px: np.ndarray
    parameters: CtfParameters
    pixel_size_A: float

    @property
    def particles(self) -> Path:
        return self.folder / "particles.star"


def simulate(
    folder: Path,
    *,
    count: int,
    snr: float,
    symmetry: str = "O",
    box: int = 64,
    pixel_size_A: float = 3.0,
    seed: int = 0,
    shift_sd_px: float = 1.0,
) -> Dataset:
    """Simulate particles of 125 Å: a hollow shell with symmetry, a solid without; noise of sd 1, CTF at 0.8 to 2 µm."""
    rng = np.random.default_rng(seed)
    hollow = symmetry != "C1"
    unit = random_shell(
        rng,
        blobs=12 if hollow else 150,
        outer_radius_A=60,
        inner_radius_A=40 if hollow else 0,
        sigma_A=(0.8 * pixel_size_A, 1.4 * pixel_size_A),
    )
    model = unit.copies(symmetry_operators(symmetry))
    rotations, shifts = random_rotations(rng, count), rng.normal(0, shift_sd_px, (count, 2))
    defocus = rng.uniform(8000, 20000, count)
    parameters = CtfParameters(
        defocus_u_A=defocus,
        defocus_v_A=defocus - 200,
        defocus_angle_deg=rng.uniform(-90, 90, count),
        voltage_kV=300.0,
        cs_mm=2.7,
        amplitude_contrast=0.1,
    )
    projections = project(model, rotations, box=box, pixel_size_A=pixel_size_A, shifts_px=shifts)
    images = image_particles(projections, parameters, pixel_size_A=pixel_size_A, snr=snr, rng=rng)
    folder.mkdir(parents=True, exist_ok=True)
    stack = folder / "particles.mrcs"
    write_stack(stack, images, pixel_size_A)
    rows = pd.DataFrame(
        {
            "rlnImageName": [format_image_name(i, stack) for i in range(count)],
            "rlnOpticsGroup": 1,
            "rlnDefocusU": parameters.defocus_u_A,
            "rlnDefocusV": parameters.defocus_v_A,
            "rlnDefocusAngle": parameters.defocus_angle_deg,
            "crpItem": [f"mic_{i % 5}" for i in range(count)],
            "rlnMicrographName": [f"mic_{i % 5}.mrc" for i in range(count)],
            "rlnCoordinateX": rng.uniform(0, 4000, count).round(2),
            "rlnCoordinateY": rng.uniform(0, 4000, count).round(2),
        }
    )
    optics = make_optics(
        voltage_kV=300,
        cs_mm=2.7,
        amplitude_contrast=0.1,
        movie_pixel_size_A=pixel_size_A,
        micrograph_pixel_size_A=pixel_size_A,
        image_pixel_size_A=pixel_size_A,
        image_size=box,
    )
    table = StarTable("particles", optics, rows)
    write_table(folder / "particles.star", table)
    truth = density(model, box=box, pixel_size_A=pixel_size_A)
    write_volume(folder / "truth.mrc", truth, pixel_size_A)
    return Dataset(folder, table, model, truth, rotations, shifts, parameters, pixel_size_A)


def truth_rows(dataset: Dataset) -> pd.DataFrame:
    """Return the true particles as ``simulate_movies`` writes them: places in px of the micrograph, angles, defoci."""
    rows = dataset.table.rows
    angles = matrix_to_euler(dataset.rotations)
    return pd.DataFrame(
        {
            "crpItem": rows["crpItem"],
            "rlnMicrographName": rows["rlnMicrographName"],
            # the image's centre shows what lies at the coordinate; a particle that needs the shift t lies at minus t
            "rlnCoordinateX": rows["rlnCoordinateX"] - dataset.shifts_px[:, 0],
            "rlnCoordinateY": rows["rlnCoordinateY"] - dataset.shifts_px[:, 1],
            "rlnAngleRot": angles[:, 0],
            "rlnAngleTilt": angles[:, 1],
            "rlnAnglePsi": angles[:, 2],
            "rlnDefocusU": rows["rlnDefocusU"],
            "rlnDefocusV": rows["rlnDefocusV"],
            "rlnDefocusAngle": rows["rlnDefocusAngle"],
            "crpKind": "apo",
        }
    )
