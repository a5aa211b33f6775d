"""The engines with CuPy's arrays, emulated and real, against themselves with NumPy's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cryopipe.imaging.geometry import angular_distance_deg
from cryopipe.imaging.optics import CtfParameters
from cryopipe.poses.model import DefocusModel, ImageModel, OffsetModel, ScaleModel, Steps
from cryopipe.poses.optics_evidence import Standing, optics_evidence
from cryopipe.poses.refine_poses import refine_poses
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import ReferenceMap
from tests.poses.test_refine_optics import MASK_A, World

FEW = 10


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def few(world: World) -> tuple[ParticleSpectra, CtfParameters]:
    return world.images(world.plain + world.noise).subset(slice(0, FEW)), world.known.subset(slice(0, FEW))


def refined(world: World, images: ParticleSpectra, cube: Any, model: ImageModel) -> Any:
    reference, start = ReferenceMap(cube, padding=3), world.start[:FEW]
    return refine_poses(
        images, world.noise_model, reference, start, np.zeros((FEW, 2)), model=model, steps=Steps(evaluations=5)
    )


def test_all_parameters_of_poses_end_where_they_do_on_the_cpu(world: World, cupy: Any) -> None:
    images, known = few(world)
    model = ImageModel(ScaleModel(refine=True), DefocusModel(known), OffsetModel(MASK_A))
    cpu = refined(world, images, world.cube, model)
    gpu = refined(world, images.to_gpu(), cupy.asarray(world.cube), model)
    assert angular_distance_deg(gpu.rotations, cpu.rotations).max() < 0.05
    # sums in another order; a step that fails by rounding is tried shorter: a tenth of the parameters' own errors
    for name, sd in (("defocus_change_A", cpu.sd("defocus")), ("scale", cpu.sd("scale"))):
        assert (np.abs(getattr(gpu, name) - getattr(cpu, name)) < 0.1 * sd).all(), name
    np.testing.assert_allclose(gpu.log_likelihood, cpu.log_likelihood, atol=0.05)


def test_evidence_of_optics_is_that_of_the_cpu(world: World, cupy: Any) -> None:
    images, known = few(world)
    standing = Standing(world.start[:FEW], np.zeros((FEW, 2)), np.ones(FEW), np.zeros((FEW, 3)))
    cpu, gpu = (
        optics_evidence(one, world.noise_model, ReferenceMap(cube, padding=3), standing, known)
        for one, cube in ((images, world.cube), (images.to_gpu(), cupy.asarray(world.cube)))
    )
    for name in ("scale_information", "defocus_information", "astigmatism_information"):
        np.testing.assert_allclose(getattr(gpu, name), getattr(cpu, name), rtol=0.01)
    np.testing.assert_allclose(gpu.defocus, cpu.defocus, atol=1.0)  # Å; the numbers have errors of a hundred


def test_images_of_both_sides_in_one_call_are_refused(world: World, cupy: Any) -> None:
    images, known = few(world)
    with pytest.raises(TypeError, match="mixed"):
        refined(
            world, replace(images, ctf=cupy.asarray(images.ctf)), world.cube, ImageModel(defocus=DefocusModel(known))
        )
