"""Levenberg-Marquardt on images: the GPU's way, all in step, against the CPU's, one by one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryopipe.kernels import pose_steps
from cryopipe.kernels.cpu.pose_parts.damped_step import propose, settle
from tests.kernels import scenes
from tests.kernels.reference import poses as reference

BOX, COUNT = 24, 6


def rules(**changes: Any) -> pose_steps.StepRules:
    options: dict[str, Any] = {
        "with_scale": True, "with_defocus": True, "with_offset": True, "iterations": 12, "tolerance": 0.01,
        "limits": np.array([0.07, 2.0, 0.5, 5.0, np.inf]), "precision": np.zeros(5),
        "low": np.array([-np.inf, -np.inf, 0.2, -20.0, -np.inf]), "high": np.array([np.inf, np.inf, 5.0, 20.0, np.inf]),
    }  # fmt: skip
    return pose_steps.StepRules(**(options | changes))


@pytest.fixture
def scene(rng):
    kx, ky = scenes.half_plane(9)
    cube = scenes.half_cube(scenes.blobs(BOX, rng), 2, 19)
    cube /= np.abs(cube).std()
    s = SimpleNamespace(cube=cube, kx=kx, ky=ky)
    s.rotations = Rotation.random(COUNT, random_state=4).as_matrix()
    s.shifts = rng.uniform(-1, 1, (COUNT, 2))
    s.phase = rng.uniform(0.5, 1, (COUNT, 5)) * [0.1, 0.05, 0.001, 0.001, 1e-5]
    s.per_A, s.defocus = np.full(COUNT, 0.002), rng.uniform(-4, 4, COUNT)
    s.gain = np.ones((COUNT, kx.size), np.float32)
    x, y = kx.astype(float), ky.astype(float)
    k2 = x**2 + y**2
    terms = np.stack([np.ones_like(k2), k2, x**2 - y**2, 2 * x * y, k2**2])
    ctf = np.sin(s.phase @ terms + (s.per_A * s.defocus)[:, None] * k2)
    s.spectrum = (5 * np.exp(-0.3 * np.hypot(kx, ky)[:30])).astype(np.float32)
    truth = 0.9 * reference.model(cube, ctf, s.rotations, s.shifts, kx, ky, box=BOX)
    truth[:, :30] += 0.3 * s.spectrum
    s.images = (truth + 0.3 * scenes.complex_noise(rng, truth.shape)).astype(np.complex64)
    s.variance = np.full(kx.size, 1 / 0.09, np.float32)
    s.start = Rotation.from_rotvec(rng.normal(size=(COUNT, 3)) * 0.03).as_matrix() @ s.rotations
    s.x = np.tile([0.0, 0.0, 1.0, 0.0, 0.0], (COUNT, 1))
    return s


def run(s, move=lambda a: a, **changes):
    problem = pose_steps.PoseProblem(
        *(move(a) for a in (s.cube, s.images, s.gain, s.variance, s.kx, s.ky)), BOX, 2, move(s.phase), move(s.per_A),
        move(s.spectrum),
    )  # fmt: skip
    return pose_steps.refine(problem, rules(**changes), s.start, s.x, middle=s.start, centre=s.x)


def test_a_gpu_ends_in_the_poses_of_the_cpu(gpu, scene):
    # sums in another order can move the end of a step by its tolerance: sqrt(2 0.01) standard errors. Here errors are near
    # 0.3°, so 0.05° is their bound; the numbers themselves agree to 1e-6 (test_poses)
    on_gpu = run(scene, gpu.array)
    on_cpu = _on_cpu(scene)
    turned = Rotation.from_matrix(on_gpu.rotations @ on_cpu.rotations.transpose(0, 2, 1)).magnitude()
    assert np.degrees(turned).max() < 0.05
    np.testing.assert_allclose(on_gpu.x, on_cpu.x, atol=0.05)
    np.testing.assert_allclose(on_gpu.value, on_cpu.value, rtol=1e-4)
    assert np.abs(on_gpu.evaluations - on_cpu.evaluations).max() <= 2


def _on_cpu(s):
    """Run on the CPU whatever the fixture has put in place of the dispatch."""
    with pytest.MonkeyPatch.context() as undone:
        from cryopipe.kernels import _dispatch, _pose_call

        for module in (_dispatch, _pose_call, pose_steps):
            undone.setattr(module, "backend_of", lambda **arrays: "cpu")
        return run(s)


def test_all_parameters_reach_the_truth_within_their_errors(fast, scene):
    s = scene
    found = run(s, fast.array)
    sd = np.sqrt(np.einsum("nii->ni", np.linalg.inv(found.hessian)))
    truth = np.column_stack([s.shifts, np.full(COUNT, 0.9), s.defocus, np.full(COUNT, 0.3)])
    # 30 errors in units of their own standard deviation
    assert np.abs((found.x - truth) / sd[:, 3:]).max() < 4.5
    assert found.converged.all()


def test_no_step_is_longer_than_its_limit(scene):
    limits = np.array([0.001, 0.01, 0.001, 0.1, 0.01])
    found = run(scene, iterations=2, limits=limits)
    turn = Rotation.from_matrix(found.rotations @ scene.start.transpose(0, 2, 1)).magnitude()
    moved = np.abs(found.x - scene.x)
    assert turn.max() < 0.001 + 1e-9
    assert np.linalg.norm(moved[:, :2], axis=1).max() < 0.01 + 1e-9
    assert np.all(moved[:, 2:] <= limits[2:] + 1e-9)
    # one of the limits is what stopped each image
    assert np.all(np.max(np.column_stack([turn / 0.001, moved[:, 2:] / limits[2:]]), axis=1) > 0.2)


def test_a_parameter_at_its_bound_is_held_while_the_others_go_on(scene):
    high = np.array([np.inf, np.inf, 5.0, 1.0, np.inf])
    low = np.array([-np.inf, -np.inf, 0.2, -1.0, -np.inf])
    found = run(scene, low=low, high=high, iterations=20)
    outside = np.abs(scene.defocus) > 2
    np.testing.assert_allclose(found.x[outside, 3], np.sign(scene.defocus[outside]))
    assert found.converged.all()


def test_a_step_from_the_normal_equations_is_gauss_newtons_where_damping_is_small(rng):
    root = rng.normal(size=(6, 6))
    hessian, gradient = root @ root.T + np.eye(6), rng.normal(size=6) * 1e-3
    rotation, x, limits = np.eye(3), np.array([0, 0, 1.0, 0, 0]), np.full(5, 1.0)
    new_rotation, new_x = np.zeros((3, 3)), np.zeros(5)
    free = np.full(5, np.inf)
    slots = np.array([0, 1, 3])
    promised = propose(hessian, gradient, 0.0, rotation, x, limits, -free, free, slots, new_rotation, new_x)
    step = -np.linalg.solve(hessian, gradient)
    np.testing.assert_allclose(Rotation.from_matrix(new_rotation).as_rotvec(), step[:3], rtol=1e-6)
    np.testing.assert_allclose(new_x, np.add(x, [step[3], step[4], 0, step[5], 0]), rtol=1e-6, atol=1e-12)
    assert promised == pytest.approx(0.5 * gradient @ np.linalg.solve(hessian, gradient), rel=1e-6)


@pytest.mark.parametrize(
    ("gain", "promised", "expected"),
    [(5.0, 6.0, (True, False, 0.2)), (0.005, 1.0, (True, True, 0.2)), (-1.0, 3.0, (False, False, 10.0)),
     (-1.0, 0.05, (False, True, 10.0))],
)  # fmt: skip
def test_a_step_is_kept_only_where_it_gains(gain, promised, expected):
    better, done, damping = settle(gain, promised, 1.0, 0.01)
    assert (better, done) == expected[:2]
    assert damping == pytest.approx(expected[2])


def test_an_image_that_is_not_finite_stays_where_it_is_and_harms_no_other(fast, scene):
    clean = run(scene, fast.array)
    scene.images[2, 5] = np.nan
    found = run(scene, fast.array)
    assert not np.isfinite(found.value[2])
    np.testing.assert_array_equal(found.rotations[2], scene.start[2])
    others = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(found.rotations[others], clean.rotations[others])
