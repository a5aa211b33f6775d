"""Defoci, astigmatism and scales of a half set: what the images tell is found, what they do not tell stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryopipe.iteration.half_set_state import HalfSet, OpticsOptions, Priors, Task
from cryopipe.iteration.improver import with_ctfs
from cryopipe.iteration.optics import update_optics
from cryopipe.iteration.pose_table import Poses
from cryopipe.poses.ctf import changed_parameters
from cryopipe.poses.optics_evidence import Standing, optics_evidence
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import ReferenceMap
from tests.poses.test_refine_optics import COUNT, World

TASK = Task(radius=30, reconstruct_radius=30, box=64, search="weak", random_share=0.0, defocus=True, grey=False)
MICROGRAPH = np.arange(COUNT) % 5


def start(world: World) -> HalfSet:
    poses = Poses(world.rotations, world.shifts, np.ones(COUNT), np.ones(COUNT))
    unknown = np.full(COUNT, np.inf)
    return HalfSet(poses, np.ones(COUNT), np.zeros((COUNT, 3)), unknown, world.noise_model.sigma2, 1.0, Priors())


def refined(
    world: World, images: ParticleSpectra, options: OpticsOptions, *, rounds: int = 4, named: bool = True
) -> HalfSet:
    """Refine the optics from true poses some times, as iterations do."""
    state, reference = start(world), ReferenceMap(world.cube, padding=3)
    for _ in range(rounds):
        standing = Standing(state.poses.rotations, state.poses.shifts_px, state.scale, state.ctf_change_A)
        evidence = optics_evidence(images, world.noise_model, reference, standing, world.known)
        state = update_optics(state, evidence, MICROGRAPH if named else None, TASK, options)
    return state


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.mark.parametrize("spread", [100.0, 300.0])
def test_heights_are_found_with_their_spread_and_their_errors(spread: float) -> None:
    world = World(defocus_sd_A=spread, snr=0.2)
    state = refined(world, world.images(world.plain + world.noise), OpticsOptions(2000.0))
    error = state.ctf_change_A[:, 0] - world.change[:, 0]
    print(state.priors, rms(error))
    assert 0.7 * spread < state.priors.defocus_A < 1.3 * spread
    assert rms(error) < 0.8 * spread
    assert 0.8 < rms(error / state.defocus_error_A) < 1.25
    np.testing.assert_array_equal(state.ctf_change_A[:, 1:], 0)
    np.testing.assert_array_equal(state.scale, 1)


@pytest.mark.parametrize("snr", [0.002, 0.02, 0.2])
def test_right_optics_stay_as_they_are_at_any_signal(snr: float) -> None:
    world = World(defocus_sd_A=0.0, snr=snr)
    options = OpticsOptions(2000.0, refine_astigmatism=True, refine_scale=True)
    state = refined(world, world.images(world.plain + world.noise), options, rounds=3)
    np.testing.assert_array_equal(state.ctf_change_A, 0)
    np.testing.assert_array_equal(state.scale, 1)
    assert state.priors == Priors()
    assert np.isfinite(state.defocus_error_A).all()


def test_the_particles_of_a_micrograph_tell_its_astigmatism_together() -> None:
    world = World(defocus_sd_A=0.0, astigmatism_A=(180.0, -120.0))
    own = np.random.default_rng(1).normal(0, 200, (5, 2))[MICROGRAPH]
    change = np.column_stack([np.zeros(COUNT), own])
    stated = changed_parameters(changed_parameters(world.known, world.change), -change)
    world.known, world.nominal = stated, world.ctf(stated)
    images = world.images(world.plain + world.noise)
    state = refined(world, images, OpticsOptions(2000.0, refine_astigmatism=True))
    assert len(np.unique(state.ctf_change_A[:, 1:], axis=0)) == 5
    # 30 particles share what each of them tells to 200 Å
    assert rms(state.ctf_change_A[:, 1:] - own) < 60
    assert rms(own) > 130
    better, known = (with_ctfs(images, stated, one).ctf for one in (state.ctf_change_A, np.zeros((COUNT, 3))))
    true = world.ctf(changed_parameters(stated, change))
    assert rms(better - true) < 0.4 * rms(known - true)


def test_scales_are_found_and_their_mean_is_one() -> None:
    world = World(defocus_sd_A=0.0, snr=0.2)
    values = 1.7 * world.plain * world.scale[:, None] + world.noise
    state = refined(world, world.images(values), OpticsOptions(2000.0, refine_scale=True))
    truth = world.scale / world.scale.mean()
    assert abs(state.scale.mean() - 1) < 0.03
    assert rms(state.scale - truth) < 0.5 * rms(truth - 1)
    assert 0.7 * rms(truth - 1) < state.priors.scale < 1.3 * rms(truth - 1)


def test_a_stated_prior_is_kept_and_a_table_without_micrographs_is_refined_by_particles() -> None:
    world = World(defocus_sd_A=200.0, snr=0.2)
    images = world.images(world.plain + world.noise)
    held = refined(world, images, OpticsOptions(2000.0, defocus_prior_A=5.0), rounds=2)
    assert held.priors.defocus_A == 5.0
    assert rms(held.ctf_change_A) < 5
    alone = refined(world, images, OpticsOptions(2000.0, refine_astigmatism=True), named=False)
    assert 140 < alone.priors.defocus_A < 260
    np.testing.assert_array_equal(alone.ctf_change_A[:, 1:], 0)


def test_noise_without_particles_moves_nothing() -> None:
    world = World(defocus_sd_A=0.0)
    images = world.images(world.noise)
    options = OpticsOptions(2000.0, refine_astigmatism=True, refine_scale=True)
    state = refined(world, replace(images), options, rounds=1)
    np.testing.assert_array_equal(state.ctf_change_A, 0)
