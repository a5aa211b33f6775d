from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.special import ndtr

from cryopipe.errors import InputError
from cryopipe.imaging.geometry import angular_distance_deg, random_rotations
from cryopipe.kernels.slices import extract_slices
from cryopipe.projection.references import reference_cube
from cryopipe.search.adaptive import bounds, cells, descent, survivors
from cryopipe.search.adaptive.levels import Level, plan_levels
from cryopipe.search.adaptive.search import search_adaptive
from cryopipe.search.exhaustive.search import search_poses
from cryopipe.search.grid import healpix_directions
from tests.particle_scenes import Scene, phantom, scene

RADIUS = 12
RANGE_PX = 3.0


@pytest.fixture(scope="module")
def octahedral() -> tuple[Scene, np.ndarray]:
    """150 noisy images of 48 px; the map they are compared with is the true one."""
    one = scene(phantom(48, group="O", blobs=3), 150, snr=0.05, radius=RADIUS)
    return one, reference_cube(one.truth.volume(), RADIUS)


def levels_of(one: Scene, **options: Any) -> tuple[Level, ...]:
    return plan_levels(one.images.box, RADIUS, 0.65 * one.images.box, root_order=2, **options)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_nested_pixels_are_those_of_the_ring_scheme(order: int) -> None:
    distance, _ = cKDTree(healpix_directions(order)).query(cells.nested_directions(order, np.arange(12 * 4**order)))
    assert distance.max() < 1e-12


def test_nested_pixels_lie_around_their_children() -> None:
    children = cells.nested_directions(3, np.arange(768)).reshape(192, 4, 3).mean(axis=1)
    children /= np.linalg.norm(children, axis=1)[:, None]
    distance = np.linalg.norm(children - cells.nested_directions(2, np.arange(192)), axis=1)
    assert np.degrees(distance.max()) < 2  # a pixel of order 2 is 15° wide


@pytest.mark.parametrize("group", ["C1", "D7", "O"])
def test_the_tree_covers_all_orientations_on_every_level(group: str) -> None:
    tree = cells.OrientationTree(1, group)
    level = tree.roots()
    rng = np.random.default_rng(0)
    for order in (1, 2, 3):
        poses = tree.rotations(order, level)
        nearest = [angular_distance_deg(pose[None], poses, tree.operators).min() for pose in random_rotations(rng, 40)]
        # corner of the largest pixel (24°, 12°, 6°; see `covering_radius_deg`) and half an in-plane step, at right
        # angles; a tenth more for frames carried along sides of a spherical triangle
        assert max(nearest) < 1.1 * np.hypot(47.2, 30) / 2**order
        level = tree.children(order, level).ravel()


def test_children_stay_close_to_their_parents_even_at_the_poles() -> None:
    tree = cells.OrientationTree(1)
    parents = tree.roots()
    children = tree.rotations(2, tree.children(1, parents).ravel()).reshape(-1, 8, 3, 3)
    apart = angular_distance_deg(tree.rotations(1, parents)[:, None], children)
    assert apart.max() < 20  # a quarter of the 30° steps in both, and the pixels' unequal widths; Euler angles: 45°


@pytest.mark.parametrize(("group", "size"), [("C1", 1), ("D2", 4), ("O", 24), ("I", 60)])
def test_shares_add_up_to_the_sphere_over_the_group(group: str, size: int) -> None:
    shares = cells.OrientationTree(2, group).shares(2, np.arange(192))
    assert shares.sum() == pytest.approx(192 / size, rel=0.04)  # 64 points a pixel along the border


def test_squares_cover_the_disc_of_shifts_and_their_quarters_the_same() -> None:
    rng = np.random.default_rng(2)
    inside = rng.uniform(-5, 5, (500, 2))
    inside = inside[np.linalg.norm(inside, axis=1) < 5]
    squares, step = cells.root_shifts(5, 2.0), 2.0
    for _ in range(3):
        distance = np.abs(inside[:, None] - cells.shift_centres(squares, step)).max(axis=2).min(axis=1)
        assert distance.max() <= step / 2 + 1e-12
        squares, step = cells.child_shifts(squares).reshape(-1, 2), step / 2


def test_cell_losses_are_quantiles_of_the_gaussian_mixture() -> None:
    power = np.random.default_rng(0).uniform(0, 30, (3, 50))
    loss = bounds.cell_losses(power, 0.01)
    exceeded = ndtr((0.5 * power - loss[:, None]) / np.sqrt(power)).mean(axis=1)
    np.testing.assert_allclose(exceeded, 0.01, rtol=1e-3)
    draws = 0.5 * power[:, :, None] + np.sqrt(power)[:, :, None] * np.random.default_rng(1).normal(size=(3, 50, 2000))
    # 100,000 draws of probability 0.01: sd 3 %
    np.testing.assert_allclose((draws > loss[:, None, None]).mean(axis=(1, 2)), 0.01, rtol=0.15)


def test_no_state_exceeds_the_bound_on_higher_frequencies() -> None:
    one = scene(phantom(32), 60, snr=0.2, radius=14, shift_px=0)
    views = random_rotations(np.random.default_rng(5), 2000)
    low = one.images.pixels.count_within(7)
    states = one.truth.slices(np.concatenate([views, one.rotations]), one.images.pixels)[:, low:]
    data, ctf = one.images.values[:, low:], one.images.ctf[:, low:]
    power = ctf**2 @ (np.abs(states) ** 2).T / one.variance
    added = ((ctf * data) @ states.conj().T).real / one.variance - 0.5 * power
    bound = bounds.high_band_bound(power.max(axis=1), 2060, 1e-3)
    assert np.all(added.max(axis=1) <= bound)  # 60 images that may each fail with probability 1e-3
    # and it is no empty one: a quarter of it is reached as a rule
    assert np.median(added.max(axis=1) / bound) > 0.2


@pytest.mark.parametrize("snr", [0.2, 0.05])
def test_the_cell_of_the_true_pose_is_pruned_no_more_often_than_stated(
    snr: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = scene(phantom(32, group="O", blobs=3), 200, snr=snr, radius=10)
    cube = reference_cube(one.truth.volume(), 10)
    levels = plan_levels(32, 10, 21, root_order=2)
    kept: list[survivors.Frontier] = []
    keep = descent.joined

    def remember(parts: list[survivors.Frontier], order: np.ndarray) -> survivors.Frontier:
        kept.append(keep(parts, order))
        return kept[-1]

    monkeypatch.setattr(descent, "joined", remember)
    miss = 0.04
    search_adaptive(
        one.images, one.sigma2, cube, levels=levels, shift_range_px=RANGE_PX, symmetry="O", miss_probability=miss,
        most_states=10**9,
    )  # fmt: skip
    tree = cells.OrientationTree(2, "O")
    lost = 0
    for i in range(200):
        frontier = kept[-2].rows(i, i + 1)  # what the last pruning left
        poses = tree.rotations(levels[-2].order, frontier.cells)
        away = angular_distance_deg(one.rotations[i][None], poses, tree.operators)
        lost += away.min() > 1.1 * np.hypot(47.2, 30) / 2 ** levels[-2].order
    # 4 % of 200 are 8; three standard deviations more. (The radius is generous, so this is a bound from one side.)
    assert lost <= 8 + 3 * np.sqrt(8)
    assert kept[0].n_states().mean() < 0.7 * len(tree.roots()) * len(cells.root_shifts(RANGE_PX, 1.0))


def exhaustive(
    one: Scene, cube: np.ndarray, levels: tuple[Level, ...], symmetry: str
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Search the whole grid of the last level of an adaptive search by `search_poses`."""
    tree = cells.OrientationTree(levels[0].order, symmetry)
    found, squares = tree.roots(), cells.root_shifts(RANGE_PX, levels[0].shift_step_px)
    for earlier, later in itertools.pairwise(levels):
        found = tree.children(earlier.order, found).ravel()
        found = found[tree.inside(later.order, found)]
        squares = cells.child_shifts(squares).reshape(-1, 2) if later.shift_step_px < earlier.shift_step_px else squares
    shares = tree.shares(levels[-1].order, found // cells.in_plane_intervals(levels[-1].order))
    level = levels[-1]
    poses, shifts = tree.rotations(level.order, found), cells.shift_centres(squares, level.shift_step_px)
    images = one.images.crop(level.radius)
    references = extract_slices(cube, poses, images.pixels.kx, images.pixels.ky)
    answer = search_poses(images, one.sigma2, references, shifts, log_prior=np.log(shares))
    return answer, poses[answer.best_state], shifts[answer.best_shift]


@pytest.mark.parametrize("guarantee", ["truth", "best"])
def test_the_best_state_of_the_exhaustive_search_survives(octahedral: tuple[Scene, np.ndarray], guarantee: str) -> None:
    one, cube = octahedral
    one = replace(one, images=one.images.subset(slice(0, 40)), rotations=one.rotations[:40])
    levels = levels_of(one)[:2]
    whole, poses, shifts = exhaustive(one, cube, levels, "O")
    found = search_adaptive(
        one.images, one.sigma2, cube, levels=levels, shift_range_px=RANGE_PX, symmetry="O", guarantee=guarantee
    )
    operators = cells.OrientationTree(2, "O").operators  # cells on the unit's border tie with their equivalents
    assert angular_distance_deg(found.rotations, poses, operators).max() < 1e-4
    np.testing.assert_allclose(found.shift_px, shifts, atol=1e-12)
    # float32 sums of some 400 products
    np.testing.assert_allclose(found.log_likelihood, whole.best_log_likelihood(), atol=2e-3)
    np.testing.assert_allclose(found.max_probability, whole.max_probability, rtol=0.02)
    assert found.reports[-1].scored < (0.7 if guarantee == "truth" else 0.9) * found.reports[-1].exhaustive


def test_poses_come_out_within_the_last_grids_steps(octahedral: tuple[Scene, np.ndarray]) -> None:
    one, cube = octahedral
    operators = cells.OrientationTree(2, "O").operators
    found = search_adaptive(
        one.images, one.sigma2, cube, levels=levels_of(one), shift_range_px=RANGE_PX, symmetry="O", n_candidates=4
    )
    error = angular_distance_deg(found.rotations, one.rotations, operators)
    assert np.median(error) < 4
    assert np.median(np.linalg.norm(found.shift_px - one.shifts, axis=1)) < 0.6
    np.testing.assert_array_equal(found.candidate_rotations[:, 0], found.rotations)
    assert np.all(np.diff(found.candidate_log[:, :2], axis=1) <= 0)
    several = np.isfinite(found.candidate_log[:, 1])
    apart = angular_distance_deg(found.candidate_rotations[several, 0], found.candidate_rotations[several, 1])
    assert apart.min() >= 2 * 60 / 2 ** levels_of(one)[-1].order
    assert found.capped.mean() < 0.05


def test_base_shifts_scales_and_noise_groups_are_used(octahedral: tuple[Scene, np.ndarray]) -> None:
    one, cube = octahedral
    images = one.images.subset(slice(0, 20))
    levels = levels_of(one)[:2]
    options: dict[str, Any] = {"levels": levels, "shift_range_px": RANGE_PX, "symmetry": "O"}
    plain = search_adaptive(images, one.sigma2, cube, **options)
    moved = replace(images, values=images.values * np.exp(2j * np.pi * 5 * images.pixels.kx / 48).astype(np.complex64))
    base = np.tile([5.0, 0.0], (20, 1))
    found = search_adaptive(moved, one.sigma2, cube, base_shifts_px=base, **options)
    np.testing.assert_allclose(found.shift_px, plain.shift_px + base)
    # on the border of the asymmetric unit equivalent poses tie, and rounding chooses
    operators = cells.OrientationTree(2, "O").operators
    assert angular_distance_deg(found.rotations, plain.rotations, operators).max() < 1e-4
    half = search_adaptive(images, one.sigma2, cube * np.float32(0.5), scale=np.full(20, 2.0), **options)
    np.testing.assert_allclose(half.log_evidence, plain.log_evidence, atol=1e-3)
    both = np.stack([np.full(RADIUS + 1, np.inf), one.sigma2[: RADIUS + 1]])
    both[0] = 9.0
    grouped = search_adaptive(images, both, cube, noise_group=np.ones(20, int), **options)
    np.testing.assert_allclose(grouped.log_evidence, plain.log_evidence, atol=1e-3)


def test_order_threads_and_batches_change_no_bit(
    octahedral: tuple[Scene, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, cube = octahedral
    levels = levels_of(one)[:2]
    options: dict[str, Any] = {"levels": levels, "shift_range_px": RANGE_PX, "symmetry": "O", "shift_sigma_px": 2.0}
    before = search_adaptive(one.images, one.sigma2, cube, threads=1, **options)
    order = np.random.default_rng(0).permutation(150)
    monkeypatch.setattr(survivors, "_BATCH_STATES", 5000)
    monkeypatch.setattr(survivors, "_SLICE_BYTES", 200_000)
    after = search_adaptive(one.images.subset(order), one.sigma2, cube, threads=2, **options)
    for name in ("rotations", "shift_px", "log_evidence", "n_effective", "candidate_log", "candidate_shifts_px"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name)[order], err_msg=name)


def test_the_fused_kernel_gives_the_same_scores(
    octahedral: tuple[Scene, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, cube = octahedral
    images = one.images.subset(slice(0, 12))
    options: dict[str, Any] = {"levels": levels_of(one)[:2], "shift_range_px": RANGE_PX, "symmetry": "O"}
    pairs = search_adaptive(images, one.sigma2, cube, **options)

    def by_kernel(problem: Any, part: Any, first: int, tree: Any, order: int, centres: Any, radius: int) -> np.ndarray:
        n_pixels = problem.images.pixels.count_within(radius)
        rows = slice(first, first + len(part))
        return survivors.score_by_kernel(problem, part, rows, tree, order, centres, n_pixels)

    monkeypatch.setattr(descent, "score", by_kernel)
    kernel = search_adaptive(images, one.sigma2, cube, **options)
    np.testing.assert_array_equal(kernel.rotations, pairs.rotations)
    np.testing.assert_allclose(kernel.log_evidence, pairs.log_evidence, atol=2e-3)  # float32 sums, two orders


def test_a_cap_is_reported(octahedral: tuple[Scene, np.ndarray]) -> None:
    one, cube = octahedral
    images = one.images.subset(slice(0, 5))
    found = search_adaptive(
        images, one.sigma2, cube, levels=levels_of(one)[:2], shift_range_px=RANGE_PX, symmetry="O", most_states=3
    )
    assert found.capped.all()
    # Three of each image. Cells on either side of the asymmetric unit's border are mates: their scores are equal up to
    # the order of float32 sums, which differs between processors, and where they are equal to the last bit both stay.
    assert 15 <= found.reports[0].kept <= 20


def test_a_cap_keeps_the_best_states_and_all_that_tie_with_the_last_of_them() -> None:
    scores = np.array([[[5.0, 1.0, 4.0], [3.0, 0.0, 2.0]], [[5.0, 1.0, 3.0], [3.0, 0.0, 2.0]]], np.float32)
    kept = survivors.from_dense(scores, np.array([7, 8, 9]), np.zeros(2), most_states=2)
    np.testing.assert_array_equal(kept.n_states(), [2, 3])
    np.testing.assert_array_equal(kept.cells, [7, 9, 7, 9])
    np.testing.assert_array_equal(kept.squares, [0, 0, 0, 1, 0])
    assert kept.capped.all()


def test_no_image_one_image_and_no_shift_are_legal(octahedral: tuple[Scene, np.ndarray]) -> None:
    one, cube = octahedral
    options: dict[str, Any] = {"levels": levels_of(one)[:2], "symmetry": "O"}
    none = search_adaptive(one.images.subset(slice(0, 0)), one.sigma2, cube, shift_range_px=1.0, **options)
    assert none.rotations.shape == (0, 3, 3)
    assert none.candidate_log.shape == (0, 8)
    still = search_adaptive(one.images.subset(slice(0, 1)), one.sigma2, cube, shift_range_px=0.0, **options)
    np.testing.assert_array_equal(still.shift_px, [[0, 0]])


def test_levels_double_the_radius_and_halve_the_steps_until_both_suffice() -> None:
    levels = plan_levels(128, 40, 83.0, final_fraction=0.25)
    assert [level.order for level in levels] == [3, 4, 5, 6, 7]
    assert [level.radius for level in levels] == [9, 18, 37, 40, 40]
    assert levels[-1].shift_step_px <= 0.5
    assert np.radians(60 / 2 ** levels[-1].order) <= 0.25 * 128 / (83 * 40)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"shift_range_px": -1.0}, "shift range -1.0 px"),
        ({"miss_probability": 0.0}, "miss probability 0.0"),
        ({"guarantee": "luck"}, "'luck': give 'truth' or 'best'"),
        ({"most_states": 0}, "at most 0 states"),
        ({"levels": (Level(2, 1.0, 5),)}, "two levels or more"),
        ({"levels": (Level(2, 1.0, 5), Level(3, 1.0, 40))}, "reach shell 40, the images 12"),
        ({"base_shifts_px": np.zeros((2, 2))}, r"base shifts of shape \(2, 2\)"),
        ({"scale": -np.ones(150)}, "grey scales"),
    ],
)
def test_bad_options_are_refused_with_their_value(
    octahedral: tuple[Scene, np.ndarray], change: dict[str, Any], text: str
) -> None:
    one, cube = octahedral
    options: dict[str, Any] = {"levels": levels_of(one), "shift_range_px": 1.0, "symmetry": "O"} | change
    with pytest.raises(InputError, match=text):
        search_adaptive(one.images, one.sigma2, cube, **options)


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(InputError, match="diameter 80 px in a box of 64"):
        plan_levels(64, 20, 80.0)
    with pytest.raises(InputError, match="must be positive"):
        plan_levels(64, 20, 40.0, coarseness=0.0)
    with pytest.raises(InputError, match="root order 5"):
        cells.OrientationTree(5)
