from __future__ import annotations

from dataclasses import replace
from typing import Any

import numba
import numpy as np
import pytest

from cryopipe.errors import InputError
from cryopipe.imaging.fsc import fourier_shell_correlation, resolution_at
from cryopipe.imaging.geometry import angular_distance_deg
from cryopipe.imaging.masks import soft_sphere
from cryopipe.kernels._dispatch import cpu_threads
from cryopipe.kernels.slices import extract_slices
from cryopipe.poses.refine_candidates import refine_candidates
from cryopipe.poses.refine_poses import refine_poses
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.phases import shift_values
from cryopipe.projection.references import ReferenceMap, ReferenceSlices, reference_cube
from cryopipe.reconstruction.prior import ssnr_from_fsc, tau2_from_ssnr
from cryopipe.reconstruction.reconstruct import Reconstruction
from cryopipe.reconstruction.weighting import b_factor_weights, weighted_images
from cryopipe.search.exhaustive.search import search_poses
from cryopipe.search.grid import orientation_grid, orientation_weights
from cryopipe.search.options import SearchOptions
from cryopipe.search.shifts import ShiftGrid, shift_grid, shift_log_prior
from tests.particle_scenes import Scene, phantom, scene


def reconstruct(one: Scene, rows: Any = slice(None), **options: Any) -> Reconstruction:
    half = Reconstruction.empty(one.images.box, one.images.pixels.radius, **options)
    half.insert(one.images.subset(rows), one.rotations[rows], one.shifts[rows], 1 / one.sigma2)
    return half


def test_noise_free_images_give_the_true_map_on_its_own_grey_scale() -> None:
    one = scene(phantom(48, radius=0.25), 1500, snr=np.inf, shift_px=3)
    found = reconstruct(one).solve()
    truth = one.truth.volume()
    curve = fourier_shell_correlation(found, truth)
    scale = np.polyfit(truth.ravel(), found.ravel(), 1)[0]  # the mean grey is no part of the data
    print("FSC", curve[[1, 5, 10, 15, 18]], "scale", scale)
    # Beyond shell 16 of 24 the phantom's power is below 1e-5 of its peak, less than what interpolation leaks from
    # there.
    assert curve[1:17].min() > 0.999
    assert scale == pytest.approx(1, abs=0.01)


def test_slices_of_the_solved_map_are_in_image_units() -> None:
    one = scene(phantom(48, radius=0.25), 1500, snr=np.inf, shift_px=0)
    found = reconstruct(one).solve()
    pixels = one.images.pixels.crop(14)
    slices = extract_slices(reference_cube(found, 14), one.rotations[:50], pixels.kx, pixels.ky)
    data = one.images.crop(14).values[:50]
    model = slices * one.images.crop(14).ctf[:50]
    scale = np.vdot(model, data).real / np.vdot(model, model).real
    assert scale == pytest.approx(1, abs=0.01)
    # Two trilinear passes, in and out, of 2 % rms each.
    assert np.linalg.norm(data - model) < 0.04 * np.linalg.norm(data)


def test_sums_of_a_search_insert_like_the_images_themselves() -> None:
    # Images on grid poses, all other states excluded by a noise-free posterior: the sums must equal direct insertion.
    one = scene(phantom(32), 60, snr=np.inf, shift_px=0)
    grid = orientation_grid(1)[::7]
    chosen = np.random.default_rng(0).integers(0, len(grid), 60)
    values = one.truth.slices(grid, one.images.pixels)[chosen] * one.images.ctf
    images = one.images.subset(np.arange(60))
    images.values[:] = values
    sigma2 = one.sigma2 * 1e-3
    references = one.truth.slices(grid, images.pixels)
    found = search_poses(
        images,
        NoiseModel(sigma2),
        ReferenceSlices(references),
        ShiftGrid(np.array([[0.0, 0.0], [2.0, 0.0]])),
        options=SearchOptions(accumulate=True),
    )
    np.testing.assert_array_equal(found.best_state, chosen)
    assert found.max_probability.min() > 0.9999
    assert found.sums is not None
    by_sums, directly = Reconstruction.empty(32, 15), Reconstruction.empty(32, 15)
    by_sums.insert_sums(found.sums, grid, images.pixels)
    directly.insert(images, grid[chosen], np.zeros((60, 2)), 1 / sigma2)
    # float32 sums in another order
    np.testing.assert_allclose(by_sums.numerator, directly.numerator, atol=2e-5 * np.abs(directly.numerator).max())
    np.testing.assert_allclose(by_sums.weight, directly.weight, atol=2e-5 * directly.weight.max())
    assert by_sums.n_images == directly.n_images == 60


def test_weights_and_noise_groups_scale_contributions() -> None:
    one = scene(phantom(32), 6, snr=1.0)
    weights = np.array([1, 2, 0, 1, 3, 1.0])
    weighted = Reconstruction.empty(32, 15)
    weighted.insert(one.images, one.rotations, one.shifts, 1 / one.sigma2, weights=weights)
    repeated = Reconstruction.empty(32, 15)
    groups = np.stack([k / one.sigma2 for k in range(4)])
    repeated.insert(one.images, one.rotations, one.shifts, groups, noise_group=weights.astype(int))
    np.testing.assert_allclose(weighted.weight, repeated.weight, rtol=1e-5, atol=1e-6 * weighted.weight.max())
    np.testing.assert_allclose(weighted.numerator, repeated.numerator, atol=1e-6 * np.abs(weighted.numerator).max())


@pytest.mark.parametrize(("symmetry", "method"), [("C1", None), ("O", None), ("I", "copies"), ("I", "interpolation")])
def test_order_threads_and_batches_change_no_bit(symmetry: str, method: Any) -> None:
    one = scene(phantom(32), 50, snr=0.5)
    order = np.random.default_rng(0).permutation(50)
    results = []
    for rows, threads, batch in ((slice(None), 1, None), (order, 1, 7), (order[::-1], 2, 13), (slice(None), 2, 1)):
        half = Reconstruction.empty(32, 15, symmetry=symmetry, method=method)
        with cpu_threads(min(threads, numba.config.NUMBA_NUM_THREADS)):
            half.insert(
                one.images.subset(rows), one.rotations[rows], one.shifts[rows], 1 / one.sigma2,
                weights=np.linspace(0.5, 1, 50)[rows], batch=batch,
            )  # fmt: skip
            volume = half.solve(ssnr=np.full(16, 2.0), threads=threads)
        results.append((half.numerator.tobytes(), half.weight.tobytes(), volume.tobytes()))
    assert results[0] == results[1] == results[2] == results[3]


def test_weights_by_shell_and_by_pixel_scale_what_they_stand_for() -> None:
    one = scene(phantom(32), 6, snr=1.0)
    by_shell = np.random.default_rng(1).uniform(0, 2, (6, 16)).astype(np.float32)
    found, expanded, by_hand = (Reconstruction.empty(32, 15) for _ in range(3))
    found.insert(one.images, one.rotations, one.shifts, 1 / one.sigma2, weights=by_shell)
    by_pixel = by_shell[:, one.images.pixels.shell]
    expanded.insert(one.images, one.rotations, one.shifts, 1 / one.sigma2, weights=by_pixel)
    by_hand.insert(one.images, one.rotations, one.shifts, by_shell / one.sigma2, noise_group=np.arange(6))
    for other in (expanded, by_hand):
        # a product of three float32 factors in another order
        np.testing.assert_allclose(found.weight, other.weight, atol=1e-6 * found.weight.max())
        np.testing.assert_allclose(found.numerator, other.numerator, atol=1e-6 * np.abs(found.numerator).max())


def test_weights_by_b_factor_fall_like_the_envelope() -> None:
    weights = b_factor_weights(np.array([0.0, 80.0]), 20, box=64, pixel_size_A=1.5)
    frequency = np.arange(21) / (64 * 1.5)
    np.testing.assert_allclose(weights[0], 1)
    np.testing.assert_allclose(weights[1], np.exp(-80 / 4 * frequency**2), rtol=1e-6)
    with pytest.raises(InputError, match="least value -3"):
        b_factor_weights(np.array([-3.0]), 20, box=64, pixel_size_A=1.5)


def test_weighting_images_by_their_b_factors_beats_equal_weights() -> None:
    """Half of the images blurred with B = 2000 Å²: matched weights halve the noise where only the others have signal."""
    one = scene(phantom(48, radius=0.25, sharpness=1.2), 300, snr=0.5)
    b_factors = np.where(np.arange(300) % 2, 2000.0, 0.0)
    envelope = b_factor_weights(b_factors, 23, box=48, pixel_size_A=one.images.pixel_size_A)
    blurred = envelope[:, one.images.pixels.shell]
    clean = one.truth.slices(one.rotations, one.images.pixels) * one.images.ctf
    values = one.images.values + (blurred - 1) * shift_values(clean, one.images.pixels, -one.shifts)
    images = replace(one.images, values=values.astype(np.complex64))
    curves = []
    for weights in (None, envelope):
        half = Reconstruction.empty(48, 23)
        half.insert(images, one.rotations, one.shifts, 1 / one.sigma2, weights=weights)
        curves.append(fourier_shell_correlation(half.solve(), one.truth.volume()))
    print(curves[0][8:17], curves[1][8:17])
    assert curves[1][8:17].mean() > curves[0][8:17].mean() + 0.02


def test_both_forms_of_the_prior_agree_and_shrink_by_the_wiener_factor() -> None:
    one = scene(phantom(32), 200, snr=0.5)
    half = reconstruct(one)
    ssnr = np.linspace(20, 0.5, 16)
    by_ssnr = half.solve(ssnr=ssnr)
    by_tau2 = half.solve(tau2=tau2_from_ssnr(ssnr, half.shell_weight(), 2))
    np.testing.assert_allclose(by_ssnr, by_tau2, atol=1e-5 * np.abs(by_ssnr).max())
    # A flat weight makes the factor exactly SSNR / (SSNR + 1).
    half.weight[:] = half.weight.mean()
    half.numerator *= half.weight.mean() / half.numerator.real.std()
    ratio = np.vdot(half.solve(ssnr=np.full(16, 3.0)), half.solve()) / np.vdot(half.solve(), half.solve())
    assert ratio == pytest.approx(0.75, rel=1e-4)


def test_a_shell_without_prior_variance_is_removed_and_empty_voxels_stay_finite() -> None:
    one = scene(phantom(32), 3, snr=1.0)  # three slices: nearly all voxels empty
    half = reconstruct(one)
    assert np.isfinite(half.solve()).all()
    ssnr = np.full(16, 1.0)
    ssnr[6:] = 0
    spectrum = np.abs(np.fft.fftn(half.solve(ssnr=ssnr)))
    k = np.rint(np.sqrt(sum(np.square(np.meshgrid(*[np.fft.fftfreq(32, 1 / 32)] * 3, indexing="ij"))))).astype(int)
    # The crop to the box spreads a shell over its neighbours (window of half the padded box), falling with distance.
    assert spectrum[k >= 12].mean() < 0.02 * spectrum[(k >= 1) & (k < 6)].mean()


def test_merging_half_sets_equals_reconstructing_all_images() -> None:
    one = scene(phantom(32), 40, snr=1.0)
    halves = [reconstruct(one, slice(i, None, 2)) for i in range(2)]
    merged, whole = halves[0].merged(halves[1]), reconstruct(one)
    np.testing.assert_allclose(merged.weight, whole.weight, atol=1e-5 * whole.weight.max())
    assert merged.n_images == 40
    running = halves[0].merged(halves[1], factor=0.8, other_factor=0.2)
    np.testing.assert_allclose(
        running.weight, 0.8 * halves[0].weight + 0.2 * halves[1].weight, atol=1e-5 * whole.weight.max()
    )


def test_spectral_snr_follows_from_the_fsc() -> None:
    np.testing.assert_allclose(ssnr_from_fsc(np.array([0.5, 0.9])), [1, 9])
    np.testing.assert_allclose(ssnr_from_fsc(np.array([0.5]), joint=True), np.sqrt(2 / 3) / (1 - np.sqrt(2 / 3)))
    assert ssnr_from_fsc(np.array([-0.3, 1.0]))[0] == pytest.approx(0.001 / 0.999)


def test_memory_is_what_is_stated() -> None:
    half = Reconstruction.empty(64, 31)
    edge = half.numerator.shape[2] - 1
    assert half.nbytes == 12 * (2 * edge + 1) ** 2 * (edge + 1)


def test_halves_that_impose_a_group_in_different_ways_are_added_only_after_it() -> None:
    one = scene(phantom(32), 10, snr=1.0)
    halves = [reconstruct(one, symmetry="C3", method=method) for method in ("copies", "interpolation")]
    with pytest.raises(InputError, match="cannot be added"):
        halves[0].merged(halves[1])
    for half in halves:
        half.symmetrise()
    assert halves[0].merged(halves[1]).n_images == 20


def test_images_prepared_in_a_batch_that_does_not_fit_are_prepared_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    one = scene(phantom(32), 40, snr=1.0)
    whole = reconstruct(one)

    def small(images: Any, rows: np.ndarray, *rest: Any, **options: Any) -> Any:
        if len(rows) > 6:
            raise MemoryError(f"{len(rows)} images")
        return weighted_images(images, rows, *rest, **options)

    monkeypatch.setattr("cryopipe.reconstruction.reconstruct.weighted_images", small)
    cut = reconstruct(one)
    np.testing.assert_array_equal(cut.numerator, whole.numerator)
    np.testing.assert_array_equal(cut.weight, whole.weight)
    assert cut.n_images == 40


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize(("symmetry", "method"), [("O", None), ("I", "copies"), ("I", "interpolation")])
def test_a_gpu_gives_the_map_of_the_cpu_and_in_ordered_mode_the_same_bits_twice(symmetry: str, method: Any) -> None:
    one = scene(phantom(32), 40, snr=1.0)
    cpu = reconstruct(one, symmetry=symmetry, method=method).solve()
    images = one.images.to_gpu()
    found = []
    for ordered, batch in ((True, None), (True, 7), (False, None)):
        half = Reconstruction.empty(32, 15, symmetry=symmetry, method=method, gpu=True, ordered=ordered)
        half.insert(images, one.rotations, one.shifts, 1 / one.sigma2, batch=batch)
        found.append(half.solve().get())
    np.testing.assert_array_equal(found[0], found[1])
    for volume in found:
        # float32 sums of some hundred values in another order, and another library's transforms: 1e-4 of the largest
        np.testing.assert_allclose(volume, cpu, atol=1e-4 * np.abs(cpu).max())


@pytest.fixture(scope="module")
def accepted() -> Scene:
    """Return the images of the acceptance test: 1000 images, 64 px, 3 Å/px, SNR 0.05 over the whole box."""
    return scene(phantom(64), 1000, snr=0.05, shift_px=2)


def half_map_fsc(one: Scene, rotations: np.ndarray, shifts: np.ndarray, symmetry: str = "C1") -> np.ndarray:
    mask = soft_sphere(64, 0.36 * 64, edge_px=5)
    maps = []
    for i in range(2):
        half = Reconstruction.empty(64, 31, symmetry=symmetry)
        half.insert(one.images.subset(slice(i, None, 2)), rotations[i::2], shifts[i::2], 1 / one.sigma2)
        maps.append(half.solve() * mask)
    return fourier_shell_correlation(*maps)


def test_known_poses_reach_the_half_map_correlation_that_is_asked_for() -> None:
    one = scene(phantom(64, blobs=8, group="O", sharpness=1.8), 1000, snr=0.05)
    curve = half_map_fsc(one, one.rotations, one.shifts, "O")
    crossing = 64 * 3.0 / resolution_at(curve, 0.143, 64, 3.0)
    print("FSC at shells 8, 16, 24:", curve[[8, 16, 24]], "0.143 at shell", crossing)
    assert np.all(curve[[8, 16, 24]] >= [0.99, 0.92, 0.42])
    assert crossing > 26


def test_global_then_local_search_recovers_poses_as_asked(accepted: Scene) -> None:
    one = replace(
        accepted,
        images=accepted.images.subset(slice(0, 500)),
        rotations=accepted.rotations[:500],
        shifts=accepted.shifts[:500],
    )
    grid = orientation_grid(2)
    cube = reference_cube(one.truth.volume(), 31)
    coarse = one.images.crop(12)
    references = extract_slices(cube, grid, coarse.pixels.kx, coarse.pixels.ky)
    shifts = shift_grid(3, 1.5)
    found = search_poses(
        coarse,
        one.noise,
        ReferenceSlices(references, log_prior=np.log(orientation_weights(grid, "C1"))),
        ShiftGrid(shifts, log_prior=shift_log_prior(shifts, 2.0)),
        options=SearchOptions(candidates=3),
    )
    best, _, _ = refine_candidates(
        coarse, one.noise, ReferenceMap(cube), grid[found.candidate_state], shifts[found.candidate_shift]
    )
    fine = refine_poses(one.images.crop(24), one.noise, ReferenceMap(cube), best.rotations, best.shifts_px)
    error = angular_distance_deg(fine.rotations, one.rotations)
    move = np.linalg.norm(fine.shifts_px - one.shifts, axis=1)
    print("pose", np.median(error), np.mean(error < 3), "shift", np.median(move))
    assert np.median(error) <= 1.8
    assert np.mean(error < 3) >= 0.88
    assert np.median(move) <= 0.25
    poses = ((fine.rotations, fine.shifts_px), (one.rotations, one.shifts))
    curve, ceiling = (half_map_fsc(one, rotations, moved) for rotations, moved in poses)
    crossings = [64 * 3.0 / resolution_at(c, 0.143, 64, 3.0) for c in (curve, ceiling)]
    print("crossing with found and with true poses", crossings)
    assert crossings[0] > crossings[1] - 3  # asked: two to three shells below the ceiling of true poses


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Reconstruction.empty(31, 10), "cube of even edge"),
        (lambda: Reconstruction.empty(32, 16), "radius 16"),
        (
            lambda: filled().insert(
                scene(phantom(24), 2, snr=1.0).images, np.zeros((2, 3, 3)), np.zeros((2, 2)), np.ones(16)
            ),
            "box 24",
        ),
        (lambda: insert(rotations=np.zeros((1, 3, 3))), "Give one pose for each"),
        (lambda: insert(inverse=np.ones(4)), "up to shell 15"),
        (lambda: insert(inverse=np.full(16, np.nan)), "finite values"),
        (lambda: filled().solve(tau2=np.ones(16), ssnr=np.ones(16)), "not both"),
        (lambda: filled().solve(tau2=np.ones(3)), "3 shells"),
        (lambda: filled().solve(ssnr=-np.ones(16)), "least value -1"),
        (lambda: filled().merged(Reconstruction.empty(32, 10)), "cannot be added"),
        (lambda: insert(symmetrised=True), "already symmetrised"),
        (lambda: insert(weights=np.ones((2, 5))), "weights have the shape"),
        (lambda: insert(weights=np.array([1.0, -2.0])), "image 2 has a weight .*-2"),
        (lambda: insert(weights=np.array([np.nan, 1.0])), "image 1 has a weight"),
        (lambda: insert(groups=np.array([0, 1])), "Give one of 1"),
        (lambda: insert(inverse=-np.ones(16)), "none negative"),
        (lambda: insert(shifts=np.array([[0, 0], [0, np.inf]])), r"image 2 has the shift \[ 0. inf\]"),
        (lambda: insert(bad_value=np.nan), "image 2 of 2 or its CTF has NaN"),
        (lambda: insert(bad_value=np.inf), "image 2 of 2 or its CTF has NaN"),
        (lambda: insert(bad_ctf=np.nan), "image 2 of 2 or its CTF has NaN"),
        (lambda: insert(batch=0), "a batch of 0 images"),
        (lambda: insert(pixel_size_A=2.0), "of 2 Å per pixel"),
        (lambda: Reconstruction.empty(32, 15).solve(), "of 0 images has no weight"),
        (lambda: insert(weights=np.zeros(2)).solve(), "of 2 images has no weight"),
        (lambda: filled().merged(Reconstruction.empty(32, 15, pixel_size_A=9.0)), "3 Å per pixel"),
    ],
)
def test_bad_input_is_refused_with_the_value(call: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        call()


def filled() -> Reconstruction:
    return reconstruct(scene(phantom(32), 2, snr=1.0))


def insert(
    rotations: Any = None,
    inverse: Any = None,
    symmetrised: bool = False,
    weights: Any = None,
    groups: Any = None,
    shifts: Any = None,
    bad_value: float | None = None,
    bad_ctf: float | None = None,
    batch: int | None = None,
    pixel_size_A: float | None = None,
) -> Reconstruction:
    one = scene(phantom(32), 2, snr=1.0)
    half = Reconstruction.empty(32, 15, symmetry="C2" if symmetrised else "C1", pixel_size_A=pixel_size_A)
    if symmetrised:
        half.symmetrise()
    if bad_value is not None:
        one.images.values[1, 7] = bad_value
    if bad_ctf is not None:
        one.images.ctf[1, 7] = bad_ctf
    half.insert(
        one.images,
        one.rotations if rotations is None else rotations,
        one.shifts if shifts is None else shifts,
        1 / one.sigma2 if inverse is None else inverse,
        weights=weights,
        noise_group=groups,
        batch=batch,
    )
    return half
