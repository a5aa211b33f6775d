"""What the halves may know of each other, and the masks and filters that are made from their maps."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.errors import InputError
from cryopipe.imaging.filters import low_pass
from cryopipe.imaging.masks import soft_sphere
from cryopipe.iteration.next_radius import NextRadius, half_map_fsc, next_search_radius
from cryopipe.reconstruction.dynamic_mask import dynamic_mask

BOX, PIXEL = 64, 2.0


def signal(rng: np.random.Generator, resolution_A: float) -> np.ndarray:
    """Return white noise of standard deviation 1 inside a sphere, low-passed: signal up to one shell and none beyond."""
    inside = rng.standard_normal((BOX,) * 3, dtype=np.float32) * soft_sphere(BOX, 20)
    return low_pass(inside, PIXEL, resolution_A, edge_shells=2)


def halves(resolution_A: float, noise: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = signal(rng, resolution_A)
    first, second = (truth + noise * rng.standard_normal((BOX,) * 3, dtype=np.float32) for _ in range(2))
    return first, second


def march(resolution_A: float, seed: int = 0, **options: object) -> NextRadius:
    given = {"searched": 20, "shared": 5, "largest": 31} | options
    return next_search_radius(half_map_fsc(*halves(resolution_A, seed=seed)), **given)  # type: ignore[arg-type]


def test_the_next_search_goes_as_far_as_the_halves_agree() -> None:
    found = march(8.0)  # shell 128 Å / 8 Å = 16, edge of 2 shells
    assert found.reason == "agreement"
    assert 15 <= found.radius <= 17
    assert found.radius == int(found.agreement)


def test_the_next_search_grows_by_a_step_at_a_time_and_never_beyond_the_data() -> None:
    assert (march(4.5, searched=10).radius, march(4.5, searched=10).reason) == (14, "growth")
    end = march(4.5, largest=24, searched=20)
    assert (end.radius, end.reason) == (24, "largest")


@pytest.mark.parametrize("seed", range(5))
def test_noise_that_shares_its_start_goes_no_further_than_what_is_shared(seed: int) -> None:
    """Below the common start's low-pass the correlation is 1 and proves nothing."""
    rng = np.random.default_rng(seed)
    start = signal(rng, BOX * PIXEL / 9)
    first, second = (start + 1e-3 * rng.standard_normal((BOX,) * 3, dtype=np.float32) for _ in range(2))
    found = next_search_radius(half_map_fsc(first, second), searched=20, shared=9, largest=31)
    # The start's filter edge ends at shell 10; a shell of some 1000 voxels has a correlation of 0.03 by chance.
    assert found.radius <= 11
    pure = [rng.standard_normal((BOX,) * 3, dtype=np.float32) for _ in range(2)]
    alone = next_search_radius(half_map_fsc(*pure), searched=20, shared=9, largest=31)
    assert (alone.radius, alone.reason) == (9, "shared")


def test_a_mask_needs_random_phases_and_its_own_correlation_is_taken_off() -> None:
    rng = np.random.default_rng(3)
    pure = [rng.standard_normal((BOX,) * 3, dtype=np.float32) for _ in range(2)]
    tight = soft_sphere(BOX, 6, edge_px=2)
    found = next_search_radius(half_map_fsc(*pure, mask=tight, rng=rng), searched=20, shared=4, largest=31)
    assert found.radius <= 6
    with pytest.raises(InputError, match="give rng"):
        half_map_fsc(*pure, mask=tight)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda a, b: (a * np.nan, b), "first half map is zero"),
        (lambda a, b: (a, b * 0), "second half map is zero"),
        (lambda a, b: (a, a.copy()), "both half maps are the same"),
        (lambda a, b: (a, b[1:]), "maps of one shape"),
    ],
)
def test_half_maps_that_prove_nothing_are_refused(change: object, text: str) -> None:
    with pytest.raises(InputError, match=text):
        half_map_fsc(*change(*halves(8.0)))  # type: ignore[operator]


def test_a_curve_too_short_or_not_finite_is_refused() -> None:
    for curve in (np.ones(5), np.full(32, np.nan)):
        with pytest.raises(InputError, match="finite everywhere"):
            next_search_radius(curve, searched=20, shared=9, largest=31)


def test_shells_out_of_order_are_refused() -> None:
    for options in ({"shared": 25, "largest": 20}, {"searched": 40}, {"growth": 1.0}):
        with pytest.raises(InputError, match="these must be"):
            march(8.0, **options)


def ball(radius: float) -> np.ndarray:
    return soft_sphere(BOX, radius, edge_px=2)


def test_a_dynamic_mask_is_one_near_the_density_and_zero_far_from_it() -> None:
    hollow = ball(18) - ball(9)
    rng = np.random.default_rng(0)
    noisy = hollow + 0.05 * rng.standard_normal(hollow.shape, dtype=np.float32)
    mask = dynamic_mask(noisy, PIXEL, diameter_A=80.0)
    r = np.linalg.norm(np.indices(mask.shape) - BOX // 2, axis=0)
    assert mask[(r > 10) & (r < 19)].min() == 1
    # density to 19 px, low-passed at 12 Å (6 px); 14 Å are 7 px
    assert mask[r > 32].max() == 0
    assert mask[BOX // 2, BOX // 2, BOX // 2] < 0.5  # the cavity is solvent
    assert mask.min() >= 0
    assert mask.max() <= 1


def test_a_neighbour_in_the_corner_takes_no_part() -> None:
    both = ball(12).copy()
    both[2:12, 2:12, 2:12] += 10.0
    np.testing.assert_allclose(
        dynamic_mask(both, PIXEL, diameter_A=50.0), dynamic_mask(ball(12), PIXEL, diameter_A=50.0), atol=0.02
    )


def test_noise_makes_the_sphere_of_the_particle_at_most() -> None:
    noise = np.random.default_rng(0).standard_normal((BOX,) * 3, dtype=np.float32)
    mask = dynamic_mask(noise, PIXEL, diameter_A=60.0)
    assert np.all(mask <= soft_sphere(BOX, 18, edge_px=4))  # 60 / 2 + 6 Å, falling over 8 Å


@pytest.mark.parametrize(
    ("volume", "options", "text"),
    [
        (ball(6), {"diameter_A": 80.0, "volume_A3": 9e5}, "less than half of the 900000 Å³ of the particle"),
        (ball(12), {"diameter_A": 130.0}, "does not fit into a box of 128"),
        (ball(12), {"diameter_A": 60.0, "near_A": 14.0}, "near 14"),
        (0 * ball(12), {"diameter_A": 60.0}, "constant"),
    ],
)
def test_a_map_that_makes_no_mask_is_refused(volume: np.ndarray, options: dict[str, float], text: str) -> None:
    with pytest.raises(InputError, match=text):
        dynamic_mask(volume, PIXEL, **options)  # type: ignore[arg-type]
