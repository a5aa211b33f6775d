from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp

from cryopipe.errors import InputError
from cryopipe.imaging.geometry import angular_distance_deg, random_rotations
from cryopipe.kernels.devices import Resources
from cryopipe.kernels.slices import extract_slices
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.references import ReferenceSlices, reference_cube
from cryopipe.search.annealing import effective_states, temperature_for_spread
from cryopipe.search.exhaustive import search as global_search
from cryopipe.search.exhaustive.search import log_likelihoods, search_bytes, search_poses
from cryopipe.search.exhaustive.tile import TileSettings, group_images
from cryopipe.search.exhaustive.tile_cpu import tile_bytes
from cryopipe.search.exhaustive.tile_gpu import ArrayTile
from cryopipe.search.grid import orientation_grid
from cryopipe.search.options import GreyScale, SearchOptions
from cryopipe.search.posterior import Posterior
from cryopipe.search.shifts import ShiftGrid, shift_grid
from tests.particle_scenes import Scene, phantom, scene

SHIFTS = shift_grid(2, 1)


@pytest.fixture(scope="module")
def small() -> tuple[Scene, np.ndarray, np.ndarray]:
    """37 images of 32 px, radius 9, and the slices of 70 random poses (neither a multiple of a block)."""
    one = scene(phantom(32), 37, snr=0.2, radius=9)
    poses = random_rotations(np.random.default_rng(8), 70)
    return one, poses, one.truth.slices(poses, one.images.pixels)


def brute_force(one: Scene, references: np.ndarray, shifts: np.ndarray, base: np.ndarray | None = None) -> np.ndarray:
    """Log-likelihoods [n, s, o] from the definition in float64: |X|² - |X - C Y exp(+2πi k t/box)|² over 2 σ²."""
    pixels, x = one.images.pixels, one.images.values.astype(np.complex128)
    result = np.empty((len(x), len(shifts), len(references)))
    for i in range(len(x)):
        for s, shift in enumerate(shifts):
            t = shift if base is None else shift + base[i]
            ramp = np.exp(2j * np.pi * (pixels.kx * t[0] + pixels.ky * t[1]) / one.images.box)
            model = one.images.ctf[i] * references * ramp
            difference = np.abs(x[i]) ** 2 - np.abs(x[i] - model) ** 2
            result[i, s] = difference.sum(axis=1) / (2 * one.variance)
    return result


def test_log_likelihoods_are_those_of_the_definition(small: Any) -> None:
    one, _, references = small
    base = np.random.default_rng(0).uniform(-3, 3, (len(one.images), 2))
    expected = brute_force(one, references, SHIFTS, base)
    found = log_likelihoods(one.images, one.noise, ReferenceSlices(references), ShiftGrid(SHIFTS, base_px=base))
    # float32 products of 2K = 280 terms whose sums reach 100: rounding 1e-4.
    np.testing.assert_allclose(found, expected, atol=5e-4 + 1e-5 * np.abs(expected).max())


def test_posterior_is_the_normalised_exponential_of_likelihood_and_priors(small: Any) -> None:
    one, _, references = small
    rng = np.random.default_rng(1)
    log_prior = rng.normal(size=70).astype(np.float32)
    shift_prior = rng.normal(size=(37, len(SHIFTS))).astype(np.float32)
    found = search_poses(
        one.images,
        one.noise,
        ReferenceSlices(references, log_prior=log_prior, n_references=7),
        ShiftGrid(SHIFTS, log_prior=shift_prior),
        options=SearchOptions(inverse_temperature=0.3, candidates=5, keep_significant=True, significant_mass=0.99),
    )
    value = 0.3 * brute_force(one, references, SHIFTS) + log_prior + shift_prior[:, :, None]
    evidence = logsumexp(value, axis=(1, 2))
    p = np.exp(value - evidence[:, None, None])
    np.testing.assert_allclose(found.log_evidence, evidence, atol=1e-3)
    np.testing.assert_allclose(found.max_probability, p.max(axis=(1, 2)), rtol=2e-3)
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=(1, 2))
    np.testing.assert_allclose(found.n_effective, np.exp(entropy), rtol=2e-3)
    np.testing.assert_allclose(found.reference_probability, p.sum(1).reshape(37, 7, 10).sum(2), atol=1e-3)
    np.testing.assert_allclose(found.mean_shift_px, p.sum(2) @ SHIFTS, atol=2e-3)
    flat = value.reshape(37, -1).argmax(axis=1)
    np.testing.assert_array_equal(found.best_shift * 70 + found.best_state, flat)
    np.testing.assert_array_equal(found.shift_px, SHIFTS[found.best_shift])
    best = np.sort(value.max(axis=1), axis=1)[:, ::-1][:, :5]
    np.testing.assert_allclose(found.candidate_log, best - best[:, :1], atol=1e-3)
    np.testing.assert_array_equal(found.candidate_state[:, 0], found.best_state)
    _check_significant(found, p)


def _check_significant(found: Posterior, p: np.ndarray) -> None:
    assert found.significant is not None
    for i in range(len(p)):
        state, shift, weight = found.significant.of_image(i)
        probability = p[i, shift, state]
        assert probability.sum() >= 0.99 - 1e-4
        np.testing.assert_allclose(weight, probability / probability.sum(), rtol=3e-3)
        ordered = np.sort(p[i].ravel())[::-1]
        least = np.searchsorted(np.cumsum(ordered), 0.99 - 1e-4) + 1
        threshold = ordered[least - 1] / 1.05  # significance is decided in steps of at most 4.5 %
        assert least <= len(state) + 1
        assert len(state) <= (ordered >= threshold).sum() + 1
        assert found.n_significant[i] == len(state)


def test_sums_are_the_posterior_weighted_data_and_noise_ratio_their_residual(small: Any) -> None:
    one, _, references = small
    found = search_poses(
        one.images,
        one.noise,
        ReferenceSlices(references),
        ShiftGrid(SHIFTS),
        options=SearchOptions(inverse_temperature=0.2, accumulate=True, keep_significant=True),
    )
    assert found.significant is not None
    assert found.sums is not None
    pixels, images = one.images.pixels, one.images
    numerator, weight = np.zeros((70, len(pixels)), complex), np.zeros((70, len(pixels)))
    residual = np.zeros(len(pixels))
    for i in range(len(images)):
        for state, shift, w in zip(*found.significant.of_image(i), strict=True):
            ramp = np.exp(-2j * np.pi * (SHIFTS[shift] @ np.stack([pixels.kx, pixels.ky])) / images.box)
            numerator[state] += w * images.ctf[i] * images.values[i] * ramp / one.variance
            weight[state] += w * images.ctf[i] ** 2 / one.variance
            residual += w * np.abs(images.values[i] * ramp - images.ctf[i] * references[state]) ** 2 / one.variance
    # float32 sums of 37 images x some 100 states
    np.testing.assert_allclose(found.sums.numerator, numerator, atol=1e-5 * np.abs(numerator).max())
    np.testing.assert_allclose(found.sums.weight, weight, atol=1e-5 * weight.max())
    shells = np.bincount(pixels.shell, residual) / np.maximum(np.bincount(pixels.shell), 1) / (2 * len(images))
    np.testing.assert_allclose(found.sums.noise_ratio(references, pixels)[1:], shells[1:], rtol=1e-4)
    np.testing.assert_allclose(found.sums.state_mass().sum(), 1)


def test_sparse_and_dense_sums_agree(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _, references = small
    results = []
    for limit in (0.0, 1.0):
        monkeypatch.setattr("cryopipe.search.exhaustive.tile_cpu._SPARSE_BELOW", limit)
        results.append(
            search_poses(
                one.images,
                one.noise,
                ReferenceSlices(references),
                ShiftGrid(SHIFTS),
                options=SearchOptions(inverse_temperature=0.3, accumulate=True),
            ).sums
        )
    dense, sparse = results
    np.testing.assert_allclose(dense.numerator, sparse.numerator, atol=1e-5 * np.abs(dense.numerator).max())
    np.testing.assert_allclose(dense.weight, sparse.weight, atol=1e-5 * dense.weight.max())


def test_noise_ratio_is_one_at_the_true_noise_and_finds_a_wrong_one() -> None:
    one = scene(phantom(32), 600, snr=0.1, radius=10, shift_px=0)
    # The references are the images' own slices: state i for image i, all others excluded by searching image by image.
    references = one.truth.slices(one.rotations, one.images.pixels)
    total = None
    for i in range(60):
        part = one.images.subset(slice(i * 10, i * 10 + 10))
        found = search_poses(
            part,
            NoiseModel(2 * one.sigma2),
            ReferenceSlices(references[i * 10 : i * 10 + 10]),
            ShiftGrid(np.zeros((1, 2))),
            options=SearchOptions(accumulate=True),
        )
        ratio = found.sums.noise_ratio(references[i * 10 : i * 10 + 10], part.pixels)  # type: ignore[union-attr]
        total = ratio if total is None else total + ratio
    assert total is not None
    # 600 images x at least 4 pixels x 2 components a shell: relative sd of a variance sqrt(2/4800) = 2 %; 4 sd.
    np.testing.assert_allclose(total[1:] / 60, 0.5, atol=0.04)


def test_scale_of_the_images_is_found_and_can_be_given() -> None:
    one = scene(phantom(32), 40, snr=2.0, radius=10, shift_px=0)
    references = one.truth.slices(one.rotations, one.images.pixels)
    factors = np.random.default_rng(3).uniform(0.5, 2, 40)
    brighter = one.images.scaled(np.ones(40))
    brighter.values[:] = one.images.values * factors[:, None].astype(np.float32)
    found = search_poses(
        brighter, NoiseModel(one.sigma2 * factors.max() ** 2), ReferenceSlices(references), ShiftGrid(np.zeros((1, 2)))
    )
    right = found.best_state == np.arange(40)
    assert right.mean() > 0.9
    # sd of a scale is 1/sqrt(norm at unit noise): about 3 % here.
    np.testing.assert_allclose(found.scale()[right], factors[right], rtol=0.15)
    told = search_poses(
        brighter.scaled(factors),
        NoiseModel(one.sigma2 * factors.max() ** 2),
        ReferenceSlices(references),
        ShiftGrid(np.zeros((1, 2))),
    )
    np.testing.assert_allclose(told.scale()[right].mean(), 1, atol=0.05)


def test_global_search_finds_poses_and_shifts() -> None:
    one = scene(phantom(64), 60, snr=0.1, radius=14)
    grid = orientation_grid(2)
    references = extract_slices(
        reference_cube(one.truth.volume(), 14), grid, one.images.pixels.kx, one.images.pixels.ky
    )
    found = search_poses(one.images, one.noise, ReferenceSlices(references), ShiftGrid(shift_grid(3, 1)))
    error = angular_distance_deg(grid[found.best_state], one.rotations)
    # Half the 15° step in three angles: a nearest neighbour is 7.6° away in the median; 15 is one step.
    assert np.median(error) < 9
    assert np.mean(error < 15) > 0.9
    assert np.median(np.linalg.norm(found.shift_px - one.shifts, axis=1)) < 0.8


def test_excluded_states_and_zero_temperature_follow_the_priors(small: Any) -> None:
    one, _, references = small
    log_prior = np.full(70, -np.inf)
    log_prior[[3, 60]] = np.log([0.25, 0.75])
    found = search_poses(
        one.images,
        one.noise,
        ReferenceSlices(references, log_prior=log_prior, n_references=70),
        ShiftGrid(SHIFTS),
        options=SearchOptions(inverse_temperature=0),
    )
    np.testing.assert_allclose(found.reference_probability[:, 60], 0.75, rtol=1e-5)
    np.testing.assert_allclose(found.reference_probability[:, 3], 0.25, rtol=1e-5)
    assert set(found.best_state) == {60}


def test_noise_groups_use_their_own_variances(small: Any) -> None:
    one, _, references = small
    group = np.arange(37) % 2
    both = np.stack([one.sigma2, 3 * one.sigma2])
    mixed = search_poses(one.images, NoiseModel(both, group=group), ReferenceSlices(references), ShiftGrid(SHIFTS))
    alone = search_poses(one.images, NoiseModel(both[1]), ReferenceSlices(references), ShiftGrid(SHIFTS))
    np.testing.assert_array_equal(mixed.log_evidence[1::2], alone.log_evidence[1::2])
    assert np.all(mixed.log_evidence[::2] != alone.log_evidence[::2])


@pytest.mark.parametrize("change", ["order", "threads", "budget"])
@pytest.mark.parametrize("inverse_temperature", [0.3, 3.0])  # dense and sparse M-step
def test_order_of_the_images_threads_and_memory_change_no_bit(change: str, inverse_temperature: float) -> None:
    one = scene(phantom(32), 130, snr=0.2, radius=9)  # four products of 39 images, the last one not full
    references = one.truth.slices(random_rotations(np.random.default_rng(8), 70), one.images.pixels)
    common: dict[str, Any] = {
        "scale": GreyScale(sd=0.1),
        "options": SearchOptions(inverse_temperature, candidates=3, accumulate=True, keep_significant=True),
    }
    least = tile_bytes(
        TileSettings(group_images(13, 70), 1, 13, 1, 1.0, 1.0, 3, True, True), 70, len(one.images.pixels)
    )
    base = np.random.default_rng(6).normal(size=(130, 2))
    before = search_poses(
        one.images, one.noise, ReferenceSlices(references), ShiftGrid(SHIFTS, base_px=base),
        resources=Resources(threads=1, memory_bytes=least), **common,
    )  # fmt: skip
    order = np.random.default_rng(4).permutation(130) if change == "order" else np.arange(130)
    threads = 2 if change == "threads" else 1
    budget = 1 << 30 if change == "budget" else least
    after = search_poses(
        one.images.subset(order), one.noise, ReferenceSlices(references), ShiftGrid(SHIFTS, base_px=base[order]),
        resources=Resources(threads=threads, memory_bytes=budget), **common,
    )  # fmt: skip
    names = ("best_state", "shift_px", "mean_shift_px", "log_evidence", "n_effective", "best_dot", "candidate_state")
    for name in names:
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name)[order], err_msg=name)
    assert after.sums is not None
    assert before.sums is not None
    np.testing.assert_array_equal(after.sums.numerator, before.sums.numerator)
    np.testing.assert_array_equal(after.sums.weight, before.sums.weight)
    np.testing.assert_array_equal(after.sums.data_power, before.sums.data_power)
    assert after.significant is not None
    assert before.significant is not None
    for i in range(130):
        pairs = zip(after.significant.of_image(i), before.significant.of_image(order[i]), strict=True)
        for one_after, one_before in pairs:
            np.testing.assert_array_equal(one_after, one_before)


def test_other_images_change_rows_in_the_last_digits_only(small: Any) -> None:
    one, _, references = small
    all_images = search_poses(one.images, one.noise, ReferenceSlices(references), ShiftGrid(SHIFTS))
    few = search_poses(one.images.subset(slice(10, 13)), one.noise, ReferenceSlices(references), ShiftGrid(SHIFTS))
    # log-likelihoods up to 100 in float32
    np.testing.assert_allclose(few.log_evidence, all_images.log_evidence[10:13], atol=1e-4)
    np.testing.assert_array_equal(few.best_state, all_images.best_state[10:13])


def test_a_budget_below_the_smallest_tile_is_refused_with_what_it_takes(small: Any) -> None:
    one, _, references = small
    with pytest.raises(InputError, match=r"70 states takes 1 MB, but memory_bytes allows 0.*fewer states"):
        search_poses(
            one.images, one.noise, ReferenceSlices(references), ShiftGrid(SHIFTS), resources=Resources(memory_bytes=1)
        )


@pytest.mark.parametrize(("n_shifts", "n_states"), [(1, 100), (13, 1872), (29, 1872), (49, 300_000), (700, 50)])
def test_products_waste_few_rows_and_fit_into_a_quarter_gigabyte(n_shifts: int, n_states: int) -> None:
    settings = TileSettings(group_images(n_shifts, n_states), 1, n_shifts, 1, 1.0, 1.0, 0, False, False)
    rows = settings.group_images * n_shifts
    assert rows <= settings.group_rows < max(1.07 * rows, rows + 48)
    assert settings.group_images == 1 or 4 * settings.group_rows * n_states <= 1.1 * (256 << 20)


def test_memory_is_predicted_before_the_search_starts() -> None:
    one = scene(phantom(32), 60, snr=0.2, radius=12)
    references = one.truth.slices(random_rotations(np.random.default_rng(8), 2000), one.images.pixels)
    given = (one.images, one.noise, ReferenceSlices(references), ShiftGrid(SHIFTS))
    options = SearchOptions(accumulate=True)
    search_poses(*given, options=options, resources=Resources(threads=1))  # compiled
    tracemalloc.start()
    search_poses(*given, options=options, resources=Resources(threads=1, memory_bytes=20 << 20))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    predicted = search_bytes(60, 2000, 13, len(one.images.pixels), accumulate=True)
    given = one.images.nbytes + references.nbytes  # made before
    # the blocks of the M-step's products (half the references each, two threads at most) and index arrays on top
    assert predicted - given < peak + 1e6
    assert peak < 1.5 * (predicted - given)


def brute_force_scaled(likelihood_at: Any, mean: float, sd: float) -> np.ndarray:
    """Average exp(log-likelihood) over a Gaussian prior of the scale by a sum over 4001 points of +- 8 sd."""
    scales = np.linspace(mean - 8 * sd, mean + 8 * sd, 4001)
    weight = -0.5 * ((scales - mean) / sd) ** 2 - np.log(sd * np.sqrt(2 * np.pi) / (scales[1] - scales[0]))
    return logsumexp([likelihood_at(a) + w for a, w in zip(scales, weight, strict=True)], axis=0)


def test_likelihood_averaged_over_the_grey_scale_is_the_integral_over_its_prior(small: Any) -> None:
    one, _, references = small
    part, states = one.images.subset(slice(0, 3)), references[:5]
    dot = (brute_force(replace(one, images=part), states, SHIFTS) + 0.5 * _norms(one, part, states)).astype(float)
    norm = _norms(one, part, states)
    expected = brute_force_scaled(lambda a: a * dot - 0.5 * a**2 * norm, 0.8, 0.3)
    scale = np.full(3, 0.8)
    found = log_likelihoods(
        part, one.noise, ReferenceSlices(states), ShiftGrid(SHIFTS), scale=GreyScale(mean=scale, sd=0.3)
    )
    np.testing.assert_allclose(found, expected, atol=2e-3)  # as for the scores
    posterior = search_poses(
        part, one.noise, ReferenceSlices(states), ShiftGrid(SHIFTS), scale=GreyScale(mean=scale, sd=0.3)
    )
    np.testing.assert_allclose(posterior.log_evidence, logsumexp(expected, axis=(1, 2)), atol=2e-3)
    at = posterior.best_dot, posterior.best_norm
    mean = (0.8 + 0.09 * at[0]) / (1 + 0.09 * at[1])  # of the Gaussian prior x Gaussian likelihood
    np.testing.assert_allclose(posterior.grey_scale, np.maximum(mean, 0), rtol=1e-5)


def _norms(one: Scene, images: Any, references: np.ndarray) -> np.ndarray:
    power = np.abs(references.astype(np.complex128)) ** 2
    return (images.ctf.astype(float) ** 2 @ power.T / one.variance)[:, None, :]


def test_unknown_grey_scales_are_estimated_and_enter_the_sums() -> None:
    one = scene(phantom(32), 40, snr=2.0, radius=10, shift_px=0)
    references = one.truth.slices(one.rotations, one.images.pixels)
    factors = np.random.default_rng(3).uniform(0.6, 1.5, 40)
    images = replace(one.images, values=one.images.values * factors[:, None].astype(np.float32))
    sigma2 = one.sigma2 * factors.max() ** 2
    none = np.zeros((1, 2))
    fixed = search_poses(
        images, NoiseModel(sigma2), ReferenceSlices(references), ShiftGrid(none), options=SearchOptions(accumulate=True)
    )
    found = search_poses(
        images,
        NoiseModel(sigma2),
        ReferenceSlices(references),
        ShiftGrid(none),
        scale=GreyScale(sd=0.3),
        options=SearchOptions(accumulate=True),
    )
    # truth is the mean of some 30 sd of the estimate's: 1/sqrt(norm) = 3 %, shrunk by the prior by another percent
    np.testing.assert_allclose(found.grey_scale, factors, rtol=0.15)
    assert (found.best_state == np.arange(40)).sum() >= (fixed.best_state == np.arange(40)).sum()
    assert found.sums is not None
    assert fixed.sums is not None
    # With the scales known, the residual is noise alone: 40 images x 4 or more pixels x 2 a shell, 4 sd.
    given = search_poses(
        images,
        NoiseModel(sigma2),
        ReferenceSlices(references),
        ShiftGrid(none),
        scale=GreyScale(mean=factors),
        options=SearchOptions(accumulate=True),
    )
    assert given.sums is not None
    expected = (one.sigma2 / sigma2)[1:11] * np.mean(factors**2)  # the factors brightened the noise, too
    scatter = 4 * np.sqrt(2 / (40 * 2 * np.bincount(images.pixels.shell)[1:]))
    for sums in (given.sums, found.sums):
        ratio = sums.noise_ratio(references, images.pixels)[1:]
        assert np.all(np.abs(ratio / expected - 1) < scatter + 0.03)
    worse = fixed.sums.noise_ratio(references, images.pixels)[1:]
    assert worse[:3].mean() > 1.5 * expected[:3].mean()


_PROGRAM = """
import hashlib, json
import numpy as np
from cryopipe.kernels.slices import extract_slices
from cryopipe.reconstruction.reconstruct import Reconstruction
from cryopipe.search.exhaustive.search import search_poses
from cryopipe.search.grid import orientation_grid
from cryopipe.search.options import SearchOptions
from cryopipe.search.shifts import ShiftGrid, shift_grid
from cryopipe.poses.refine_poses import refine_poses
from cryopipe.projection.references import ReferenceMap, ReferenceSlices, reference_cube
from tests.particle_scenes import phantom, scene
one = scene(phantom(32, group="O", blobs=3), 50, snr=0.1)
cube = reference_cube(one.truth.volume(), 15)
images, grid = one.images.crop(10), orientation_grid(2, "O")
references = extract_slices(cube, grid, images.pixels.kx, images.pixels.ky)
options = SearchOptions(accumulate=True)
found = search_poses(images, one.noise, ReferenceSlices(references), ShiftGrid(shift_grid(2, 1)), options=options)
moved = refine_poses(one.images, one.noise, ReferenceMap(cube), grid[found.best_state], found.shift_px)
half = Reconstruction.empty(32, 15, symmetry="O")
half.insert(one.images, moved.rotations, moved.shifts_px, 1 / one.sigma2)
half.insert_sums(found.sums, grid, images.pixels)
half.symmetrise()
results = (found.log_evidence, found.sums.numerator, moved.rotations, half.numerator, half.weight, half.solve())
print(json.dumps([hashlib.sha256(np.ascontiguousarray(a)).hexdigest() for a in results]))
"""


def test_search_refinement_and_reconstruction_give_the_same_bits_with_one_and_two_threads() -> None:
    digests = []
    for threads in ("1", "2"):
        environment = os.environ | {"NUMBA_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        run = subprocess.run(
            [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=True
        )
        digests.append(json.loads(run.stdout))
    assert digests[0] == digests[1]


def test_array_expressions_and_cpu_loops_give_the_same_answer(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _, references = small
    given = (
        one.images,
        one.noise,
        ReferenceSlices(references, n_references=2),
        ShiftGrid(SHIFTS, base_px=np.full((37, 2), 0.3)),
    )
    options: dict[str, Any] = {
        "scale": GreyScale(np.linspace(0.8, 1.2, 37), 0.2),
        "options": SearchOptions(0.2, candidates=4, keep_significant=True, accumulate=True),
    }
    cpu = search_poses(*given, **options)

    def array_tile(xp: Any, given: Any, settings: TileSettings, threads: int) -> ArrayTile:
        return ArrayTile(given, settings)

    monkeypatch.setattr(global_search, "_tile", array_tile)
    array = search_poses(*given, **options)
    for name in (
        "log_evidence",
        "max_probability",
        "n_effective",
        "reference_probability",
        "mean_shift_px",
        "candidate_log",
        "grey_scale",
    ):
        # two float32 exponentials and two orders of summation
        np.testing.assert_allclose(getattr(array, name), getattr(cpu, name), rtol=2e-4, atol=2e-4, err_msg=name)
    np.testing.assert_array_equal(array.best_state, cpu.best_state)
    np.testing.assert_array_equal(array.candidate_state, cpu.candidate_state)
    # A state on the border of a significance bin may fall to either side.
    assert np.mean(array.n_significant == cpu.n_significant) > 0.8
    assert array.sums is not None
    assert cpu.sums is not None
    np.testing.assert_allclose(array.sums.numerator, cpu.sums.numerator, atol=2e-3 * np.abs(cpu.sums.numerator).max())
    np.testing.assert_allclose(array.sums.weight, cpu.sums.weight, atol=2e-3 * cpu.sums.weight.max())
    array_log = log_likelihoods(one.images, one.noise, ReferenceSlices(references), ShiftGrid(SHIFTS))
    monkeypatch.undo()
    np.testing.assert_allclose(
        array_log, log_likelihoods(one.images, one.noise, ReferenceSlices(references), ShiftGrid(SHIFTS)), atol=1e-3
    )


def test_temperatures_spread_the_posterior_as_far_as_asked(small: Any) -> None:
    one, _, references = small
    scores = log_likelihoods(one.images, one.noise, ReferenceSlices(references), ShiftGrid(SHIFTS))
    n_states = 70 * len(SHIFTS)
    beta = temperature_for_spread(scores, 0.05)
    assert 0 < beta < 1
    assert effective_states(scores, beta).mean() == pytest.approx(0.05 * n_states, rel=0.02)
    found = search_poses(
        one.images,
        one.noise,
        ReferenceSlices(references),
        ShiftGrid(SHIFTS),
        options=SearchOptions(inverse_temperature=beta),
    )
    assert found.n_effective.mean() == pytest.approx(0.05 * n_states, rel=0.02)
    assert temperature_for_spread(0 * scores, 0.5) == 1.0
    with pytest.raises(InputError, match="0 < fraction < 1"):
        temperature_for_spread(scores, 1.0)


def test_no_image_gives_an_empty_posterior(small: Any) -> None:
    one, _, references = small
    found = search_poses(
        one.images.subset(slice(0, 0)),
        one.noise,
        ReferenceSlices(references),
        ShiftGrid(SHIFTS),
        options=SearchOptions(keep_significant=True),
    )
    assert found.log_evidence.shape == (0,)
    assert found.shift_px.shape == (0, 2)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"references": ReferenceSlices(np.zeros((4, 3), np.complex64))}, "do not fit images"),
        ({"references": ReferenceSlices(np.full((4, 140), np.nan, np.complex64))}, "references"),
        ({"noise": NoiseModel(np.ones(5))}, "do not reach shell 9"),
        ({"noise": NoiseModel(np.zeros(16))}, "must be positive"),
        ({"noise": NoiseModel(np.ones((2, 16)))}, "Give the group"),
        ({"noise": NoiseModel(np.ones((2, 16)), np.full(37, 2))}, "one of 2 noise spectra to each of 37 images"),
        ({"states": {"n_references": 3}}, "cannot be divided equally into 3"),
        ({"states": {"log_prior": np.full(70, np.nan)}}, "log_prior"),
        ({"shifts": ShiftGrid(SHIFTS, np.zeros((3, 13)))}, r"shift_log_prior of shape \(3, 13\)"),
        ({"nan": True}, "image 6 .*NaN"),
        ({"scale": GreyScale(np.zeros(37))}, "grey scales have the shape"),
        ({"shifts": ShiftGrid(SHIFTS, base_px=np.zeros((3, 2)))}, r"base shifts have the shape \(3, 2\)"),
    ],
)
def test_what_does_not_fit_the_images_is_refused_with_the_value(small: Any, change: dict[str, Any], text: str) -> None:
    one, _, references = small
    images = one.images
    if change.pop("nan", False):
        images = images.subset(np.arange(37))
        images.values[5, 3] = np.nan
    states = ReferenceSlices(references, **change.pop("states", {}))
    given = {"noise": one.noise, "references": states, "shifts": ShiftGrid(SHIFTS)} | change
    with pytest.raises(InputError, match=text):
        search_poses(images, **given)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ShiftGrid(np.zeros((0, 2))), "at least one shift"),
        (lambda: SearchOptions(inverse_temperature=-1.0), "inverse temperature -1"),
        (lambda: SearchOptions(significant_mass=0.0), "significant mass"),
        (lambda: SearchOptions(candidates=-1), "number of candidates, -1,"),
        (lambda: GreyScale(sd=-1.0), "deviation -1.0 of the grey scale"),
    ],
)
def test_impossible_options_are_refused_with_the_value(make: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        make()
