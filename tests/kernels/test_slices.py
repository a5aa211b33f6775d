"""Central slices and their adjoint, against their definition and against the properties that make them right."""

from __future__ import annotations

import itertools

import numba
import numpy as np
import pytest

from cryopipe.kernels import slices
from cryopipe.kernels._dispatch import cpu_threads
from tests.kernels import scenes
from tests.kernels.reference import slices as reference

#: float32 rounding: 8 products of values near 1, coordinates up to 20 voxels known to 2e-6 with slopes near 2; 3e-6
#: is seen
FLOAT32 = 2e-5


@pytest.fixture
def scene(rng):
    kx, ky = scenes.half_plane(7)
    radius = 15
    cube = scenes.noise_cube(rng, radius)
    poses = scenes.rotations(5)
    values = scenes.complex_noise(rng, (5, kx.size))
    weights = rng.random((5, kx.size)).astype(np.float32)
    return cube, poses, values, weights, kx, ky


def inserted(on, scene, padding=2, **options):
    cube, poses, values, weights, kx, ky = scene
    numerator, weight = on.array(np.zeros_like(cube)), on.array(np.zeros(cube.shape, np.float32))
    moved = [on.array(a) for a in (poses, values, weights, kx, ky)]
    on.kernel("slices.insert_slices")(numerator, weight, *moved, padding=padding, **options)
    return on.numpy(numerator), on.numpy(weight)


@pytest.mark.parametrize("padding", [1, 1.5, 2])
def test_slices_agree_with_the_interpolation_written_out_on_the_full_cube(fast, scene, padding):
    cube, poses, _, _, kx, ky = scene
    got = fast.call("slices.extract_slices", cube, poses, kx, ky, padding=padding)
    expected = reference.extract_slices(cube, poses, kx, ky, padding=padding)
    assert np.abs(got - expected).max() < FLOAT32


@pytest.mark.parametrize("padding", [1, 1.5, 2])
def test_insertion_agrees_with_the_scatter_of_both_mates_into_the_full_cube(fast, scene, padding):
    numerator, weight = inserted(fast, scene, padding)
    cube, poses, values, weights, kx, ky = scene
    expected, expected_weight = np.zeros(cube.shape, complex), np.zeros(cube.shape)
    reference.insert_slices(expected, expected_weight, poses, values, weights, kx, ky, padding=padding)
    assert np.abs(numerator - expected).max() < FLOAT32
    assert np.abs(weight - expected_weight).max() < FLOAT32


def test_the_identity_pose_reads_the_grid_points_themselves(on, scene):
    cube, poses, _, _, kx, ky = scene
    got = on.call("slices.extract_slices", cube, poses[:1], kx, ky, padding=2)
    radius = cube.shape[2] - 1
    np.testing.assert_array_equal(got[0].astype(np.complex64), cube[radius, radius + 2 * ky, 2 * kx])


def test_insertion_is_the_adjoint_of_extraction(on, scene):
    cube, poses, values, _, kx, ky = scene
    numerator, _ = inserted(on, scene)
    extracted = on.call("slices.extract_slices", cube, poses, kx, ky, padding=2)
    count = np.full(cube.shape, 2.0)
    count[:, :, 0] = 1
    left = 2 * np.sum((np.conj(extracted.astype(complex)) * values).real)
    right = np.sum(count * (np.conj(cube.astype(complex)) * numerator).real)
    # the scale of the sum's terms, not of the sum, which nearly cancels for noise; 1e-5 is the promised agreement
    assert abs(left - right) < 1e-5 * np.linalg.norm(extracted) * np.linalg.norm(values)


def test_an_inserted_half_cube_is_hermitian_and_keeps_the_total_weight(on, scene):
    numerator, weight = inserted(on, scene)
    plane = numerator[:, :, 0]
    assert np.abs(plane - np.conj(plane[::-1, ::-1])).max() < 1e-6 * np.abs(numerator).max()
    count = np.full(weight.shape, 2.0)
    count[:, :, 0] = 1
    # float32 sums of 1e5 shares: 1e-5
    assert (count * weight).sum() == pytest.approx(2 * scene[3].sum(dtype=float), rel=1e-5)


def test_a_slice_is_real_for_a_symmetric_cube_and_dc_neighbours_are_conjugate_symmetric(on, scene):
    cube, poses, _, _, _, _ = scene
    kx = np.array([1, -1, 3, -3], np.int32)
    ky = np.array([2, -2, -1, 1], np.int32)
    got = on.call("slices.extract_slices", cube, poses, kx, ky, padding=2)
    assert np.abs(got[:, 0] - np.conj(got[:, 1])).max() < 1e-6 * np.abs(cube).max()
    assert np.abs(got[:, 2] - np.conj(got[:, 3])).max() < 1e-6 * np.abs(cube).max()


def test_four_quarter_turns_about_the_view_cycle_through_the_image(on, scene):
    cube, poses, _, _, _, _ = scene
    turn = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], np.float32)
    kx, ky = np.array([3, 1, 0, 5], np.int32), np.array([1, 4, 2, 0], np.int32)
    frequencies = (kx, ky)
    expected = on.call("slices.extract_slices", cube, poses, *frequencies, padding=2)
    pose = poses
    for _ in range(4):
        # B = turn A sends k to A^T (turn^T k), so reading at turn k gives the same samples
        pose = (turn @ pose).astype(np.float32)
        frequencies = (frequencies[1].astype(np.int32), (-frequencies[0]).astype(np.int32))
        got = on.call("slices.extract_slices", cube, pose, *frequencies, padding=2)
        assert np.abs(got - expected).max() < FLOAT32
    np.testing.assert_array_equal(frequencies, (kx, ky))


def test_a_slice_on_the_grid_is_the_transform_of_the_projection(fast, rng):
    box, padding, reach = 32, 2, 14
    volume = scenes.blobs(box, rng)
    kx, ky = scenes.half_plane(reach)
    cube = scenes.half_cube(volume, padding, padding * reach + 1, correct=False)  # nothing is interpolated here
    got = fast.call("slices.extract_slices", cube, np.eye(3, dtype=np.float32)[None], kx, ky, padding=padding)[0]
    expected = (np.fft.fft2(np.fft.ifftshift(volume.sum(axis=0))) / box)[ky, kx]
    assert np.linalg.norm(got - expected) < 1e-6 * np.linalg.norm(expected)  # complex64 storage


@pytest.mark.parametrize(("padding", "limit"), [(2, 0.02), (3, 0.01)])
def test_a_tilted_slice_of_a_phantom_is_the_transform_of_its_projection(fast, padding, limit):
    """Gaussians have a closed transform, so the projection along a tilted view needs no interpolation in real space.

    Limits are the accepted ones of the field. A point at u = x / (padding box) leaves aliases (u / (1 - u))^2 and
    (u / (1 + u))^2 on each axis: 1.28 % (padding 2) and 0.55 % (padding 3) rms for these points; 1.40 % and 0.58 % are
    seen.
    """
    box, reach, sigma = 48, 20, 1.5
    centres = np.array([[5.0, -7, 3], [-9, 2, 6], [1, 8, -10], [-4, -3, -2]])
    axis = np.arange(box) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    volume = sum(np.exp(-((x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2) / (2 * sigma**2)) for c in centres)
    kx, ky = scenes.half_plane(reach)
    cube = scenes.half_cube(volume, padding, padding * reach + 1)
    poses = scenes.rotations(7)[1:]
    got = fast.call("slices.extract_slices", cube, poses, kx, ky, padding=padding)
    seen = np.einsum("nij,cj->nci", poses[:, :2], centres)  # A takes map axes into the view's
    phase = -2j * np.pi / box * (seen[:, :, :1] * kx + seen[:, :, 1:] * ky)
    k2 = (kx.astype(float) ** 2 + ky.astype(float) ** 2) / box**2
    expected = np.exp(phase).sum(axis=1) * (2 * np.pi * sigma**2) ** 1.5 * np.exp(-2 * (np.pi * sigma) ** 2 * k2) / box
    error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    assert error < limit


def test_insertion_is_bit_identical_whatever_the_number_of_threads(scene):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only: NUMBA_NUM_THREADS is 1")
    cube, poses, values, weights, kx, ky = scene
    results = []
    for threads in (1, 2):
        numerator, weight = np.zeros_like(cube), np.zeros(cube.shape, np.float32)
        with cpu_threads(threads):
            slices.insert_slices(numerator, weight, poses, values, weights, kx, ky)
        results.append((numerator.tobytes(), weight.tobytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize("threads", [1, 2])
def test_cutting_the_images_into_calls_changes_no_bit(scene, threads):
    cube, poses, values, weights, kx, ky = scene
    results = []
    for cuts in ([0, 5], [0, 1, 4, 5], [0, 2, 3, 5]):
        numerator, weight = np.zeros_like(cube), np.zeros(cube.shape, np.float32)
        with cpu_threads(min(threads, numba.config.NUMBA_NUM_THREADS)):
            for part in itertools.starmap(slice, itertools.pairwise(cuts)):
                slices.insert_slices(numerator, weight, poses[part], values[part], weights[part], kx, ky)
        results.append((numerator.tobytes(), weight.tobytes()))
    assert results[0] == results[1] == results[2]


def test_several_poses_of_an_image_equal_inserting_it_at_each(fast, scene):
    cube, poses, values, weights, kx, ky = scene
    copies = scenes.rotations(3, seed=5)
    several = np.einsum("nij,mjk->nmik", poses, copies).astype(np.float32)
    together = inserted(fast, (cube, several, values, weights, kx, ky))
    each = [inserted(fast, (cube, several[:, m], values, weights, kx, ky)) for m in range(3)]
    for found, parts in zip(together, zip(*each, strict=True), strict=True):
        # float32 sums of some 10 values near 1 in another order
        assert np.abs(found - sum(parts)).max() < FLOAT32


def test_ordered_insertion_on_a_gpu_gives_the_same_bits_however_images_are_cut_into_launches(scene, gpu):
    cube, poses, values, weights, kx, ky = scene
    results = []
    for cuts in ([0, 5], [0, 2, 3, 5]):
        numerator, weight = gpu.array(np.zeros_like(cube)), gpu.array(np.zeros(cube.shape, np.float32))
        for part in itertools.starmap(slice, itertools.pairwise(cuts)):
            moved = [gpu.array(a) for a in (poses[part], values[part], weights[part], kx, ky)]
            gpu.kernel("slices.insert_slices")(numerator, weight, *moved, ordered=True)
        results.append((gpu.numpy(numerator).tobytes(), gpu.numpy(weight).tobytes()))
    assert results[0] == results[1]


def test_ordered_insertion_on_a_gpu_is_bit_reproducible_and_equals_the_atomic_one(scene, gpu):
    first, second = inserted(gpu, scene, ordered=True), inserted(gpu, scene, ordered=True)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    atomic = inserted(gpu, scene)
    assert np.abs(first[0] - atomic[0]).max() < FLOAT32
    assert np.abs(first[1] - atomic[1]).max() < FLOAT32


def test_insertion_adds_to_what_is_there_and_leaves_its_other_inputs_alone(fast, scene):
    cube, poses, values, weights, kx, ky = scene
    copies = [a.copy() for a in (poses, values, weights, kx, ky)]
    numerator, weight = fast.array(np.ones_like(cube)), fast.array(np.ones(cube.shape, np.float32))
    moved = [fast.array(a) for a in (poses, values, weights, kx, ky)]
    fast.kernel("slices.insert_slices")(numerator, weight, *moved)
    alone, alone_weight = inserted(fast, scene)
    assert np.abs(fast.numpy(numerator) - 1 - alone).max() < FLOAT32
    assert np.abs(fast.numpy(weight) - 1 - alone_weight).max() < FLOAT32
    for before, after in zip(copies, moved, strict=True):
        np.testing.assert_array_equal(before, fast.numpy(after))


def test_no_images_leave_the_cube_unchanged(fast, scene):
    cube, poses, values, weights, kx, ky = scene
    empty = (cube, poses[:0], values[:0], weights[:0], kx, ky)
    numerator, weight = inserted(fast, empty)
    assert not numerator.any()
    assert not weight.any()
    assert fast.call("slices.extract_slices", cube, poses[:0], kx, ky).shape == (0, kx.size)


def test_a_cube_too_small_for_the_frequencies_is_refused_with_the_needed_radius(scene):
    cube, poses, _, _, kx, ky = scene
    with pytest.raises(ValueError, match="at least 22 is needed"):
        slices.extract_slices(cube, poses, kx, ky, padding=3)


def test_matrices_that_are_no_rotations_are_refused(scene):
    cube, poses, _, _, kx, ky = scene
    for bad in (poses * 1.01, np.full_like(poses, np.nan)):
        with pytest.raises(ValueError, match="not rotation matrices"):
            slices.extract_slices(cube, bad, kx, ky)


def test_wrong_types_and_shapes_are_refused(scene):
    cube, poses, values, weights, kx, ky = scene
    with pytest.raises(TypeError, match="cube must be complex64, not complex128"):
        slices.extract_slices(cube.astype(complex), poses, kx, ky)
    with pytest.raises(TypeError, match="kx must be integer"):
        slices.extract_slices(cube, poses, kx.astype(float), ky)
    with pytest.raises(TypeError, match="NumPy or a CuPy array, not list"):
        slices.extract_slices(cube, poses.tolist(), kx, ky)
    with pytest.raises(ValueError, match="centred half cube"):
        slices.extract_slices(cube[1:], poses, kx, ky)
    with pytest.raises(ValueError, match="kx must not be negative"):
        slices.insert_slices(cube.copy(), weights_like(cube), poses, values, weights, -kx, ky)
    with pytest.raises(ValueError, match="given twice"):
        slices.insert_slices(cube.copy(), weights_like(cube), poses, values, weights, kx * 0, ky)


def weights_like(cube):
    return np.zeros(cube.shape, np.float32)
