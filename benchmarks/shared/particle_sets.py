"""Simulated particles on disk for the benchmarks. They are written in chunks, so that any number fits into memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from cryopipe.imaging.geometry import random_rotations
from cryopipe.imaging.optics import CtfParameters
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.io.mrc import StackWriter, format_image_name
from cryopipe.io.star import StarTable, make_optics, write_table
from cryopipe.simulation.particle_images import BlobModel, image_particles, project, random_shell

CHUNK = 500


def write_particles(
    folder: Path,
    projections: Callable[[slice], np.ndarray],
    stated: CtfParameters,
    true: CtfParameters,
    *,
    pixel_size_A: float,
    snr: float,
    rng: np.random.Generator,
    a_micrograph: int = 30,
) -> None:
    """Write particles.mrcs and particles.star.

    Parameters
    ----------
    folder : Path
    projections : callable
        Returns the noise-free projections of some of the particles, float32 ``[n, y, x]``.
    stated, true : CtfParameters
        CTFs in the table, and those of the images.
    pixel_size_A, snr : float
        Pixel size and signal-to-noise ratio of the images.
    rng : Generator
        Source of noise and coordinates.
    a_micrograph : int
        Number of particles per micrograph.
    """
    count = int(stated.count or 0)
    stack = folder / "particles.mrcs"
    box = 0
    with StackWriter(stack, pixel_size_A) as writer:
        for start in range(0, count, CHUNK):
            part = slice(start, min(start + CHUNK, count))
            clean = projections(part)
            box = clean.shape[-1]
            writer.append(image_particles(clean, true.subset(part), pixel_size_A=pixel_size_A, snr=snr, rng=rng))
    rows = pd.DataFrame(
        {
            "rlnImageName": [format_image_name(i, stack) for i in range(count)],
            "rlnMicrographName": [f"mic_{i // a_micrograph:05d}.mrc" for i in range(count)],
            "rlnCoordinateX": rng.uniform(0, 4000, count),
            "rlnCoordinateY": rng.uniform(0, 4000, count),
            "rlnDefocusU": stated.defocus_u_A,
            "rlnDefocusV": stated.defocus_v_A,
            "rlnDefocusAngle": stated.defocus_angle_deg,
            "rlnOpticsGroup": 1,
        }
    )
    optics = make_optics(
        voltage_kV=300,
        cs_mm=2.7,
        amplitude_contrast=0.1,
        movie_pixel_size_A=pixel_size_A,
        image_pixel_size_A=pixel_size_A,
        image_size=box,
    )
    write_table(folder / "particles.star", StarTable("particles", optics, rows))


def write_phantoms(
    folder: Path, count: int, *, box: int, pixel_size_A: float, snr: float, views: int = 400
) -> BlobModel:
    """Write particles of a hollow octahedral shell of 120 Å in a few hundred views, which are made quickly.

    Parameters
    ----------
    folder : Path
    count, box : int
        Number of particles, and side of their images in px.
    pixel_size_A, snr : float
        Pixel size and signal-to-noise ratio of the images.
    views : int
        Number of different orientations.

    Returns
    -------
    BlobModel
        The particle.
    """
    rng = np.random.default_rng(0)
    shell = random_shell(rng, blobs=40, outer_radius_A=60, inner_radius_A=40, sigma_A=(2.0, 4.0))
    model = shell.copies(symmetry_operators("O"))
    seen = project(model, random_rotations(rng, views), box=box, pixel_size_A=pixel_size_A)
    defocus = np.repeat(rng.uniform(8000, 20000, -(-count // 30)), 30)[:count]
    optics = CtfParameters(defocus, defocus - 200, np.full(count, 30.0), 300.0, 2.7, 0.1)
    chosen = rng.integers(0, views, count)
    write_particles(
        folder, lambda part: seen[chosen[part]], optics, optics, pixel_size_A=pixel_size_A, snr=snr, rng=rng
    )
    return model
