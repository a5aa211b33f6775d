from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryopipe.imaging.geometry import random_rotations
from cryopipe.imaging.optics import CtfParameters, ctf_stack
from cryopipe.iteration.improver import with_ctfs
from cryopipe.iteration.pose_table import Poses
from cryopipe.iteration.residuals import measure_residuals, refine_ctfs
from cryopipe.poses.ctf import changed_parameters
from cryopipe.poses.model import DefocusModel
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import spectra_of_images
from cryopipe.projection.references import ReferenceMap, reference_cube
from cryopipe.simulation.particle_images import density, image_particles, project, random_shell

BOX, PIXEL_A, COUNT = 96, 1.5, 60


def centred(rotations: np.ndarray) -> Poses:
    """Return poses with these rotations [n, 3, 3] and no shift."""
    return replace(Poses.centred(np.zeros((len(rotations), 2))), rotations=rotations)


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


def test_a_line_search_finds_each_particles_height(scene: dict) -> None:
    cube = reference_cube(scene["volume"], 36)
    found = refine_ctfs(
        scene["spectra"],
        NoiseModel(np.full(37, 0.5)),
        ReferenceMap(cube),
        centred(scene["rotations"]),
        defocus=DefocusModel(scene["known"], sigma_A=1000, range_A=2000),
    )
    # asked: within 150 Å at 4 Å
    assert np.std(found[:, 0] - scene["change"]) < 150
    assert np.abs(np.median(found[:, 0] - scene["change"])) < 40


def test_flipped_images_tell_their_defocus_and_keep_the_signs_of_their_flip(scene: dict) -> None:
    plain = scene["spectra"]
    flipped = replace(
        plain, values=plain.values * np.where(plain.ctf < 0, np.float32(-1), np.float32(1)), ctf=np.abs(plain.ctf)
    )
    cube = reference_cube(scene["volume"], 36)
    common = (NoiseModel(np.full(37, 0.5)), ReferenceMap(cube), centred(scene["rotations"]))
    defocus = DefocusModel(scene["known"], sigma_A=1000, range_A=2000)
    found, expected = (refine_ctfs(images, *common, defocus=defocus) for images in (flipped, plain))
    # signs of data and model alike: the same sums but for rounding
    np.testing.assert_allclose(found, expected, atol=1.0)
    after = with_ctfs(flipped, scene["known"], found)
    signed = with_ctfs(plain, scene["known"], found)
    np.testing.assert_allclose(after.ctf, signed.ctf * np.where(plain.ctf < 0, -1, 1), atol=1e-6)


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


def test_the_known_defoci_stay_where_there_is_no_signal() -> None:
    rng = np.random.default_rng(3)
    known = CtfParameters(np.full(20, 12000.0), np.full(20, 11800.0), np.full(20, 20.0))
    noise = rng.standard_normal((20, BOX, BOX), dtype=np.float32)
    spectra = spectra_of_images(noise, known, pixel_size_A=PIXEL_A, radius=30)
    cube = reference_cube(1e-6 * rng.standard_normal((BOX,) * 3).astype(np.float32), 30)
    found = refine_ctfs(
        spectra,
        NoiseModel(np.full(31, 0.5)),
        ReferenceMap(cube),
        centred(random_rotations(rng, 20)),
        defocus=DefocusModel(known, sigma_A=300, range_A=2000),
    )
    # the prior alone decides: the grid's own step is its resolution
    assert np.abs(found).max() < 50


def test_the_particles_of_a_micrograph_tell_its_astigmatism_together(scene: dict) -> None:
    rng = np.random.default_rng(6)
    micrograph = np.arange(COUNT) % 3
    wrong = np.zeros((COUNT, 3))
    wrong[:, 1:] = rng.normal(0, 250, (3, 2))[micrograph]
    true = scene["known"].with_defocus_offset(scene["change"])
    stated = changed_parameters(scene["known"], -wrong)
    per_A = 1 / (BOX * PIXEL_A)
    pixels = scene["spectra"].pixels
    images = replace(scene["spectra"], ctf=ctf_stack(pixels.kx * per_A, pixels.ky * per_A, stated))
    cube = reference_cube(scene["volume"], 36)
    common = (images, NoiseModel(np.full(37, 0.5)), ReferenceMap(cube), centred(scene["rotations"]))
    defocus = DefocusModel(stated, sigma_A=1000, range_A=2000)
    found = refine_ctfs(*common, defocus=defocus, micrograph=micrograph, astigmatism_prior_A=500)
    assert len(np.unique(found[:, 1:], axis=0)) == 3
    # measured: 5 Å, where single particles tell their defocus to 15 Å; 20 of them share it: bound at four times that
    assert np.sqrt(np.mean((found - wrong)[:, 1:] ** 2)) < 20
    assert np.sqrt(np.mean(wrong[:, 1:] ** 2)) > 150
    assert np.std(found[:, 0] - scene["change"]) < 150
    alone = refine_ctfs(*common, defocus=defocus)
    np.testing.assert_array_equal(alone[:, 1:], 0)
    expected = ctf_stack(pixels.kx * per_A, pixels.ky * per_A, true)
    errors = [np.mean((with_ctfs(images, stated, change).ctf - expected) ** 2) for change in (found, alone)]
    assert errors[0] < 0.5 * errors[1]
