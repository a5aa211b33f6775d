"""Normal equations and scores of poses, against their definition and against finite differences."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryopipe.kernels import poses
from tests.kernels import scenes
from tests.kernels.reference import poses as reference

#: float32 model values against float64 ones, relative to the sum of squares; 2e-7 is seen, blocks are summed in float64
FLOAT32 = 3e-6


#: names of the parameters in their order; the last five only where asked for
PARAMETERS = ("wx", "wy", "wz", "tx", "ty", "scale", "defocus", "astigmatism 1", "astigmatism 2", "offset")


@pytest.fixture
def scene(rng):
    box, padding = 24, 2
    kx, ky = scenes.half_plane(9)
    n = 3
    cube = scenes.half_cube(scenes.blobs(box, rng), padding, 19)
    cube /= np.abs(cube).std()
    s = SimpleNamespace(cube=cube, kx=kx, ky=ky, options={"box": box, "padding": padding})
    s.rotations = Rotation.random(n, random_state=4).as_matrix()
    s.shifts = rng.uniform(-2, 2, (n, 2))
    s.ctf = rng.uniform(-1, 1, (n, kx.size)).astype(np.float32)
    s.phase = rng.uniform(-0.2, 0.2, (n, 5)) * [10, 1, 0.2, 0.2, 0.01]
    s.per_A = rng.uniform(0.01, 0.02, n)
    s.inverse_variance = rng.uniform(0.5, 2, kx.size).astype(np.float32)
    s.scale = rng.uniform(0.7, 1.3, n).astype(np.float32)
    s.offset_spectrum = rng.standard_normal(40).astype(np.float32)
    s.offset = rng.uniform(-0.5, 0.5, n)
    truth = reference.model(cube, s.ctf, s.rotations, s.shifts, kx, ky, scale=s.scale, **s.options)
    s.images = (truth + 0.3 * scenes.complex_noise(rng, truth.shape)).astype(np.complex64)
    return s


def everything(s):
    """Return the options that make all ten parameters free."""
    return {
        "scale": s.scale, "with_scale": True, "phase": s.phase, "per_A": s.per_A, "defocus_terms": 3,
        "offset_spectrum": s.offset_spectrum, "offset": s.offset, **s.options,
    }  # fmt: skip


def sine_of(s, n, change=(0, 0, 0)):
    """Return sin chi of image n after a change of its three defocus terms, written out in float64."""
    p = s.phase[n] + s.per_A[n] * np.array([0, *change, 0])
    x, y = s.kx.astype(float), s.ky.astype(float)
    k2 = x**2 + y**2
    return np.sin(p[0] + p[1] * k2 + p[2] * (x**2 - y**2) + p[3] * 2 * x * y + p[4] * k2**2)


def residual(s, n, step):
    """Return the whitened residual (a real vector) of image n after a step in PARAMETERS from where it is."""
    turned = Rotation.from_rotvec(step[:3]).as_matrix() @ s.rotations[n]
    ctf = s.ctf[n].astype(float) * sine_of(s, n, step[6:9])
    expected = reference.model(
        s.cube, ctf[None], turned[None], (s.shifts[n] + step[3:5])[None], s.kx, s.ky,
        scale=(s.scale[n] + step[5:6]).astype(float), **s.options,
    )[0]  # fmt: skip
    expected[: len(s.offset_spectrum)] += (s.offset[n] + step[9]) * s.offset_spectrum
    whitened = (s.images[n] - expected) * np.sqrt(s.inverse_variance.astype(float))
    return np.concatenate([whitened.real, whitened.imag])


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_the_normal_equations_are_those_of_finite_differences_of_the_reference(fast, scene, parameter):
    s = scene
    hessian, gradient, value = fast.call(
        "poses.normal_equations", s.cube, s.images, s.ctf, s.inverse_variance, s.rotations, s.shifts, s.kx, s.ky,
        **everything(s),
    )  # fmt: skip
    at = PARAMETERS.index(parameter)
    h = 1e-6  # central differences in float64: truncation and rounding are both near 1e-9
    for n in range(len(s.images)):
        columns = [(residual(s, n, h * e) - residual(s, n, -h * e)) / (2 * h) for e in np.eye(10)]
        jacobian, own = np.stack(columns, axis=1), residual(s, n, np.zeros(10))
        scale = np.linalg.norm(jacobian, axis=0)
        assert value[n] == pytest.approx(0.5 * own @ own, rel=FLOAT32)
        # 1e-4: float32 coordinates near a cell's border may fall into the neighbouring cell, whose gradient differs
        assert (np.abs(hessian[n, at] - jacobian[:, at] @ jacobian) / (scale[at] * scale)).max() < 1e-4
        np.testing.assert_array_equal(hessian[n, at], hessian[n, :, at])
        assert np.abs(gradient[n, at] - jacobian[:, at] @ own) / (scale[at] * np.linalg.norm(own)) < 1e-4


def test_fewer_parameters_are_blocks_of_all_ten(fast, scene):
    s = scene
    arrays = (s.cube, s.images, s.ctf, s.inverse_variance, s.rotations, s.shifts, s.kx, s.ky)
    ten = fast.call("poses.normal_equations", *arrays, **everything(s))
    fixed = {"scale": s.scale, "phase": s.phase, "per_A": s.per_A, **s.options}
    without = s.images.copy()
    without[:, :40] -= (s.offset[:, None] * s.offset_spectrum).astype(np.complex64)
    for options, chosen in (
        ({}, []),
        ({"with_scale": True}, [5]),
        ({"defocus_terms": 1}, [6]),
        ({"with_scale": True, "defocus_terms": 1}, [5, 6]),
        ({"defocus_terms": 3}, [6, 7, 8]),
    ):
        block = [0, 1, 2, 3, 4, *chosen]
        found = fast.call("poses.normal_equations", s.cube, without, *arrays[2:], **fixed, **options)
        size = np.sqrt(np.einsum("nii->ni", ten[0]))
        assert found[0].shape == (3, len(block), len(block))
        difference = np.abs(found[0] - ten[0][:, block][:, :, block]) / (size[:, block, None] * size[:, None, block])
        # rounding of the images after the offset was taken from them
        assert difference.max() < 1e-6
        np.testing.assert_allclose(found[2], ten[2], rtol=FLOAT32)


def test_the_ctf_array_and_its_phase_say_the_same(fast, scene):
    s = scene
    head, tail = (s.cube, s.images), (s.inverse_variance, s.rotations, s.shifts, s.kx, s.ky)
    array = np.stack([s.ctf[n] * sine_of(s, n) for n in range(3)]).astype(np.float32)
    plain = fast.call("poses.normal_equations", *head, array, *tail, **s.options)
    phased = fast.call("poses.normal_equations", *head, s.ctf, *tail, phase=s.phase, **s.options)
    for a, b in zip(plain, phased, strict=True):
        # float32 sine of a phase that is reduced in float64: 3e-7, relative to the largest entry
        assert np.abs(a - b).max() < 1e-5 * np.abs(a).max()


def test_scores_of_defoci_are_minus_the_values_at_their_phases(fast, scene):
    s = scene
    arrays = (s.cube, s.images, s.ctf, s.inverse_variance, s.rotations, s.shifts, s.kx, s.ky)
    common = {"scale": s.scale, "offset_spectrum": s.offset_spectrum, "offset": s.offset, **s.options}
    trials = {"first": -7.0, "step": 0.7, "count": 21}
    got = fast.call("poses.score_defoci", *arrays, phase=s.phase, per_A=s.per_A, **trials, **common)
    assert got.shape == (3, 21)
    for j in (0, 9, 20):
        moved = s.phase.copy()
        moved[:, 1] += s.per_A * (-7.0 + 0.7 * j)
        value = fast.call("poses.normal_equations", *arrays, phase=moved, **common)[2]
        size = (np.abs(s.images) ** 2 * s.inverse_variance).sum(axis=1).max()
        np.testing.assert_allclose(got[:, j], -value, rtol=0, atol=FLOAT32 * size)


def test_gauss_newton_finds_the_pose_and_shift_of_a_noise_free_image(fast, scene):
    s = scene
    clean = reference.model(s.cube, s.ctf, s.rotations, s.shifts, s.kx, s.ky, **s.options).astype(np.complex64)
    moved = Rotation.from_rotvec([0.02, -0.03, 0.025]).as_matrix() @ s.rotations
    shifts = s.shifts + np.array([0.3, -0.2])
    for _ in range(8):
        hessian, gradient, _ = fast.call(
            "poses.normal_equations", s.cube, clean, s.ctf, s.inverse_variance, moved, shifts, s.kx, s.ky, **s.options
        )
        step = -np.linalg.solve(hessian, gradient[..., None])[..., 0]
        moved = Rotation.from_rotvec(step[:, :3]).as_matrix() @ moved
        shifts = shifts + step[:, 3:]
    angle = Rotation.from_matrix(moved @ np.swapaxes(s.rotations, 1, 2)).magnitude()
    # a noise-free optimum is exact up to float32 images and slices
    assert angle.max() < 1e-4
    assert np.abs(shifts - s.shifts).max() < 1e-3


def test_a_displaced_image_needs_the_opposite_shift(fast, scene):
    s = scene
    origin = np.zeros((1, 2))
    still = reference.model(s.cube, s.ctf[:1], s.rotations[:1], origin, s.kx, s.ky, **s.options)
    displaced = (still * np.exp(-2j * np.pi / 24 * (s.kx * 1.25 - s.ky * 0.5))).astype(np.complex64)
    shifts = origin
    for _ in range(6):
        hessian, gradient, _ = fast.call(
            "poses.normal_equations", s.cube, displaced, s.ctf[:1], s.inverse_variance, s.rotations[:1], shifts,
            s.kx, s.ky, **s.options,
        )  # fmt: skip
        shifts = shifts - np.linalg.solve(hessian[:, 3:, 3:], gradient[:, 3:, None])[..., 0]
    np.testing.assert_allclose(shifts, [[-1.25, 0.5]], atol=1e-3)


def test_an_image_may_have_weights_of_its_own(fast, scene):
    s = scene
    factor = np.array([1, 2, 4], np.float32)
    arrays, poses = (s.cube, s.images, s.ctf), (s.rotations, s.shifts, s.kx, s.ky)
    shared = fast.call("poses.normal_equations", *arrays, s.inverse_variance, *poses, **s.options)
    own = fast.call("poses.normal_equations", *arrays, factor[:, None] * s.inverse_variance, *poses, **s.options)
    for one, other in zip(shared, own, strict=True):
        expected = one * factor.reshape(-1, *[1] * (one.ndim - 1))
        np.testing.assert_allclose(other, expected, rtol=0, atol=FLOAT32 * np.abs(expected).max())


def test_frequencies_of_no_weight_do_not_count(fast, scene, rng):
    s = scene
    weight = np.where(np.hypot(s.kx, s.ky) < 6, s.inverse_variance, 0).astype(np.float32)
    spoilt = np.where(weight > 0, s.images, 1e3 * scenes.complex_noise(rng, s.images.shape)).astype(np.complex64)
    tail = (s.rotations, s.shifts, s.kx, s.ky)
    clean = fast.call("poses.normal_equations", s.cube, s.images, s.ctf, weight, *tail, **s.options)
    dirty = fast.call("poses.normal_equations", s.cube, spoilt, s.ctf, weight, *tail, **s.options)
    for a, b in zip(clean, dirty, strict=True):
        np.testing.assert_array_equal(a, b)


def test_bad_inputs_are_refused_by_name(scene):
    s = scene
    good = [s.cube, s.images, s.ctf, s.inverse_variance, s.rotations, s.shifts, s.kx, s.ky]
    for at, bad, match in [
        (1, s.images.astype(complex), "images must be complex64"),
        (2, s.ctf[:, 1:], "ctf must have shape"),
        (3, s.inverse_variance[1:], "inverse_variance must have shape"),
        (4, s.rotations * 2, "not rotation matrices"),
        (5, s.shifts[:, :1], "shifts_px must have shape"),
    ]:
        with pytest.raises((TypeError, ValueError), match=match):
            poses.normal_equations(*good[:at], bad, *good[at + 1 :], **s.options)
    for options, match in [
        ({"defocus_terms": 2}, "0, 1 or 3"),
        ({"defocus_terms": 1}, "phase and per_A"),
        ({"phase": s.phase[:, :4]}, "phase must have shape"),
        ({"offset_spectrum": s.offset_spectrum[:0]}, "offset_spectrum must hold"),
        ({"scale": s.scale[:1]}, "scale must have shape"),
    ]:
        with pytest.raises(ValueError, match=match):
            poses.normal_equations(*good, **options, **s.options)
