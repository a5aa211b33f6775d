from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryopipe.imaging.geometry import random_rotations
from cryopipe.imaging.optics import CtfParameters, ctf_stack
from cryopipe.iteration.residuals import measure_residuals
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import spectra_of_images
from cryopipe.projection.references import ReferenceMap, reference_cube
from cryopipe.simulation.particle_images import density, image_particles, project, random_shell

BOX, PIXEL_A, COUNT = 96, 1.5, 60


@pytest.fixture(scope="module")
def scene() -> dict:
    """Return images at 1.5 Å whose true defoci differ from those known by up to 1000 Å; white noise of sd 1."""
    rng = np.random.default_rng(2)
    model = random_shell(rng, blobs=300, outer_radius_A=50, inner_radius_A=0, sigma_A=(1.0, 1.5))
    rotations = random_rotations(rng, COUNT)
    known = CtfParameters(np.full(COUNT, 12000.0), np.full(COUNT, 11800.0), np.full(COUNT, 20.0))
    change = rng.uniform(-1000, 1000, COUNT)
    projections = project(model, rotations, box=BOX, pixel_size_A=PIXEL_A)
    images = image_particles(projections, known.with_defocus_offset(change), pixel_size_A=PIXEL_A, snr=0.2, rng=rng)
    spectra = spectra_of_images(images, known, pixel_size_A=PIXEL_A, radius=36)
    volume = density(model, box=BOX, pixel_size_A=PIXEL_A)
    # the same signal at a variance of one, all but free of noise, tells the grey scale of the images
    clean = image_particles(projections, known, pixel_size_A=PIXEL_A, snr=1e8, rng=rng) / 1e4
    data = spectra_of_images(clean, known, pixel_size_A=PIXEL_A, radius=36)
    fitted = spectra_of_images(projections, None, pixel_size_A=PIXEL_A, radius=36).values * data.ctf
    grey = np.sqrt(0.2) * np.sum((data.values * fitted.conj()).real) / np.sum(np.abs(fitted) ** 2)
    return {
        "spectra": spectra,
        "volume": volume * np.float32(grey),
        "rotations": rotations,
        "known": known,
        "change": change,
    }


def test_residuals_at_true_poses_have_the_variance_of_the_noise(scene: dict) -> None:
    spectra, known = scene["spectra"], scene["known"]
    per_A = 1 / (BOX * PIXEL_A)
    true = known.with_defocus_offset(scene["change"])
    images = replace(spectra, ctf=ctf_stack(spectra.pixels.kx * per_A, spectra.pixels.ky * per_A, true))
    cube = reference_cube(scene["volume"], 36)
    noise = NoiseModel(np.full(37, 0.5))
    measured = measure_residuals(images, noise, ReferenceMap(cube), scene["rotations"], np.zeros((COUNT, 2)))
    # white noise of sd 1 has 0.5 in real and imaginary part each; shells from 8 on have 1500 pixels: 5 % is 2.7 sd
    np.testing.assert_allclose(measured.sigma2[8:], 0.5, rtol=0.05)
    assert measured.grey == pytest.approx(1.0, abs=0.05)
