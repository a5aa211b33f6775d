"""The engines with CuPy's arrays, emulated and real, against themselves with NumPy's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cryopipe.imaging.geometry import angular_distance_deg
from cryopipe.imaging.optics import CtfParameters
from cryopipe.poses.model import DefocusModel
from cryopipe.poses.refine_astigmatism import refine_astigmatism
from cryopipe.poses.refine_poses import refine_poses
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import reference_cube
from cryopipe.search.adaptive.levels import plan_levels
from cryopipe.search.adaptive.search import search_adaptive
from tests.particle_scenes import phantom, scene
from tests.poses.test_refine_optics import MASK_A, World

FEW = 10


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def few(world: World) -> tuple[ParticleSpectra, CtfParameters]:
    return world.images(world.plain + world.noise).subset(slice(0, FEW)), world.known.subset(slice(0, FEW))


def refined(world: World, images: ParticleSpectra, cube: Any, known: CtfParameters, **options: Any) -> Any:
    given: dict[str, Any] = {"defocus": DefocusModel(known), "padding": 3, "iterations": 5} | options
    return refine_poses(images, world.sigma2, cube, world.start[:FEW], np.zeros((FEW, 2)), **given)


def test_all_parameters_of_poses_end_where_they_do_on_the_cpu(world: World, cupy: Any) -> None:
    images, known = few(world)
    options = {"with_scale": True, "offset_mask_A": MASK_A}
    cpu = refined(world, images, world.cube, known, **options)
    gpu = refined(world, images.to_gpu(), cupy.asarray(world.cube), known, **options)
    assert angular_distance_deg(gpu.rotations, cpu.rotations).max() < 0.05
    # sums in another order; a step that fails by rounding is tried shorter: a tenth of the parameters' own errors
    for name, sd in (("defocus_change_A", cpu.sd("defocus")), ("scale", cpu.sd("scale"))):
        assert (np.abs(getattr(gpu, name) - getattr(cpu, name)) < 0.1 * sd).all(), name
    np.testing.assert_allclose(gpu.log_likelihood, cpu.log_likelihood, atol=0.05)


def test_astigmatism_is_that_of_the_cpu(world: World, cupy: Any) -> None:
    images, known = few(world)
    model, micrograph = DefocusModel(known), np.arange(FEW) % 2
    before = refined(world, images, world.cube, known)
    found = [
        refine_astigmatism(one, world.sigma2, cube, before, model, micrograph, iterations=3, padding=3).change_A
        for one, cube in ((images, world.cube), (images.to_gpu(), cupy.asarray(world.cube)))
    ]
    np.testing.assert_allclose(found[1], found[0], atol=1.0)  # Å; the numbers have errors of a hundred


def test_an_adaptive_search_finds_the_poses_of_the_cpu(cupy: Any) -> None:
    one = scene(phantom(32, group="O", blobs=3), 3, snr=0.3, radius=8)
    cube = reference_cube(one.truth.volume(), 8)
    options: dict[str, Any] = {
        "levels": plan_levels(one.images.box, 8, 0.65 * one.images.box, root_order=1)[:2],
        "shift_range_px": 1.0,
        "symmetry": "O",
    }
    cpu = search_adaptive(one.images, one.sigma2, cube, **options)
    gpu = search_adaptive(one.images.to_gpu(), one.sigma2, cupy.asarray(cube), **options)
    np.testing.assert_allclose(gpu.log_evidence, cpu.log_evidence, atol=1e-2)
    assert angular_distance_deg(gpu.rotations, cpu.rotations).max() < 1e-3


def test_images_of_both_sides_in_one_call_are_refused(world: World, cupy: Any) -> None:
    images, known = few(world)
    with pytest.raises(TypeError, match="mixed"):
        refined(world, replace(images, ctf=cupy.asarray(images.ctf)), world.cube, known)
