"""What images say of scale, defocus and astigmatism: right, with the errors that are stated, and in two independent parts."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from cryopipe.imaging.fsc import fourier_shell_correlation
from cryopipe.poses.ctf import changed_parameters
from cryopipe.poses.model import DefocusModel, ImageModel
from cryopipe.poses.optics_evidence import OpticsEvidence, Standing, optics_evidence
from cryopipe.poses.refine_poses import refine_poses
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import ReferenceMap, reference_cube
from cryopipe.reconstruction.reconstruct import Reconstruction
from tests.particle_scenes import phantom
from tests.poses.test_refine_optics import BOX, COUNT, World, refined


@pytest.fixture(scope="module")
def world() -> World:
    """Return images whose defoci are off by 60 Å, which turns the outermost CTF's phase by a fifth of a radian."""
    return World(defocus_sd_A=60.0, astigmatism_A=(50.0, -30.0))


def told(world: World, images: ParticleSpectra, **change: Any) -> OpticsEvidence:
    poses = refined(world, images)
    given = {"rotations": poses.rotations, "shifts_px": poses.shifts_px}
    given |= {"scale": np.ones(COUNT), "ctf_change_A": np.zeros((COUNT, 3))} | change
    return optics_evidence(
        images, world.noise_model, ReferenceMap(world.cube, padding=3), Standing(**given), world.known
    )


def test_estimates_scatter_as_their_information_states_and_parts_are_independent(world: World) -> None:
    values = world.plain * world.scale[:, None] + world.noise
    found = told(world, world.images(values))
    bound = 3 / np.sqrt(COUNT)
    for name, truth in (("scale", world.scale), ("defocus", world.change[:, 0])):
        error = getattr(found, name) - truth[:, None]
        off = error * np.sqrt(getattr(found, f"{name}_information"))
        # 150 numbers of unit variance in each part: rms within 0.83 to 1.17 at three standard errors
        np.testing.assert_allclose(np.sqrt(np.mean(off**2, axis=0)), 1, atol=1.2 * bound / np.sqrt(2), err_msg=name)
        assert abs(np.corrcoef(error.T)[0, 1]) < bound, name
        assert np.corrcoef(found.defocus[:, 0], world.change[:, 0])[0, 1] > 0.3


def test_all_images_together_tell_their_astigmatism(world: World) -> None:
    found = told(world, world.images(world.plain + world.noise))
    information = found.astigmatism_information.sum(axis=0)
    step = np.linalg.solve(information, found.astigmatism.sum(axis=0)[:, :, None])[:, :, 0]
    sd = np.sqrt(np.einsum("pii->pi", np.linalg.inv(information)))
    assert (np.abs(step - [50.0, -30.0]) < 3.5 * sd).all()
    # one image in 150 tells 200 Å: sums over all are what makes it useful
    assert sd.max() < 25


def test_the_slope_is_right_where_the_reference_holds_the_images_own_noise() -> None:
    world = World(defocus_sd_A=100.0, snr=0.1)
    images = world.images(world.plain + world.noise)
    # poses as they are, CTFs as they are stated: each image is in the map with a defocus that is wrong by 100 Å
    sums = Reconstruction.empty(BOX, 30, expected_slices=COUNT)
    sums.insert(images, world.rotations, world.shifts, 1 / world.noise_model.sigma2)
    agreement = fourier_shell_correlation(sums.solve(), phantom(BOX, blobs=80, sharpness=1.6).volume())[:31]
    ssnr = agreement**2 / np.maximum(1 - agreement**2, 1e-6)
    own = ReferenceMap(reference_cube(sums.solve(ssnr=ssnr), 30))
    standing = Standing(world.rotations, world.shifts, np.ones(COUNT), np.zeros((COUNT, 3)))
    found = optics_evidence(images, world.noise_model, own, standing, world.known)
    weight, truth = found.defocus_information.sum(axis=1), world.change[:, 0]
    by_slope = (found.defocus * found.defocus_information).sum(axis=1) / weight
    model = ImageModel(defocus=DefocusModel(world.known, sigma_A=100.0))
    by_maximum = refine_poses(
        images, world.noise_model, own, world.rotations, world.shifts, model=model
    ).defocus_change_A
    share = [float((weight * one * truth).sum() / (weight * truth**2).sum()) for one in (by_slope, by_maximum)]
    print("share of the true change in the estimate", share)
    # the likelihood has its maximum near the stated value, whatever the truth
    assert share[1] < 0.25
    assert share[0] > 0.5


def test_flipped_images_say_what_plain_ones_say(world: World) -> None:
    plain = world.images(world.plain + world.noise)
    sign = np.where(plain.ctf < 0, np.float32(-1), np.float32(1))
    flipped = replace(plain, values=plain.values * sign, ctf=np.abs(plain.ctf))
    change = np.tile([30.0, 20.0, -10.0], (COUNT, 1))
    expected, found = (told(world, one, ctf_change_A=change) for one in (plain, flipped))
    for field in fields(expected):
        wanted = getattr(expected, field.name)
        # poses of both have been refined to a tolerance, and sums are in float32
        np.testing.assert_allclose(getattr(found, field.name), wanted, atol=0.02 * np.abs(wanted).std(), rtol=0.05)


def test_what_is_told_is_the_whole_change_wherever_the_image_stands(world: World) -> None:
    images = world.images(world.plain + world.noise)
    from_there = told(world, images, ctf_change_A=world.change)
    nearer = replace(images, ctf=world.ctf(changed_parameters(world.known, world.change)))
    poses = refined(world, images)
    standing = Standing(poses.rotations, poses.shifts_px, np.ones(COUNT), np.zeros((COUNT, 3)))
    parameters = changed_parameters(world.known, world.change)
    rest = optics_evidence(nearer, world.noise_model, ReferenceMap(world.cube, padding=3), standing, parameters)
    np.testing.assert_allclose(from_there.defocus, rest.defocus + world.change[:, :1], atol=0.5)


def test_an_empty_reference_says_nothing(world: World) -> None:
    images = world.images(world.plain + world.noise)
    standing = Standing(world.rotations, world.shifts, np.full(COUNT, 0.9), np.full((COUNT, 3), 7.0))
    empty = ReferenceMap(world.cube * 0, padding=3)
    found = optics_evidence(images, world.noise_model, empty, standing, world.known)
    np.testing.assert_array_equal(found.defocus, 7.0)
    np.testing.assert_array_equal(found.scale, 0.9)
    assert max(float(np.abs(found.defocus_information).max()), float(np.abs(found.scale_information).max())) < 1e-200


def test_no_image_depends_on_the_images_beside_it(world: World) -> None:
    images = world.images(world.plain + world.noise)
    standing = Standing(world.rotations, world.shifts, np.ones(COUNT), world.change)
    given = (world.noise_model, ReferenceMap(world.cube, padding=3))
    whole = optics_evidence(images, *given, standing, world.known)
    some = np.array([77, 3, 140])
    few = optics_evidence(images.subset(some), *given, standing.subset(some), world.known.subset(some))
    for field in fields(whole):
        np.testing.assert_array_equal(getattr(few, field.name), getattr(whole, field.name)[some], err_msg=field.name)
