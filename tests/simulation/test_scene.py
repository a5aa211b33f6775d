"""What a movie shows is drawn within its limits: places, motion, special movies."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.config.simulation import SimulateMovies
from cryopipe.simulation.motion import Motion, draw_motion
from cryopipe.simulation.placement import place_particles
from cryopipe.simulation.scene import EXCESSIVE_DRIFT_A, draw_scene, iron_core, kinds_of

NOTHING = np.empty((0, 3))


def distances(places: np.ndarray) -> np.ndarray:
    d = np.hypot(*(places[:, None] - places).transpose(2, 0, 1))
    return d + np.where(np.eye(len(places), dtype=bool), np.inf, 0)


@pytest.mark.parametrize("seed", range(5))
def test_particles_neither_overlap_nor_reach_over_the_border(seed: int) -> None:
    places = place_particles(
        np.random.default_rng(seed), count=56, size_px=(1152, 1100), distance_px=130.0, forbidden=NOTHING
    )
    assert 40 <= len(places) <= 56
    assert distances(places).min() >= 130.0 - 1e-6
    assert places.min() >= 65
    assert (places <= np.array([1152, 1100]) - 1 - 65).all()
    assert (distances(places).min(axis=1) < 1.05 * 130).sum() > 5, "dense enough that neighbours touch"


def test_particles_stay_off_contaminants_and_inside_a_hole() -> None:
    forbidden = np.array([[300.0, 400.0, 150.0], [800.0, 700.0, 100.0]])
    hole = (-200.0, 500.0, 900.0)
    places = place_particles(
        np.random.default_rng(0), count=60, size_px=(1024, 1024), distance_px=120.0, forbidden=forbidden, inside=hole
    )
    assert len(places) > 5
    for x, y, radius in forbidden:
        assert np.hypot(*(places - (x, y)).T).min() >= radius + 60 - 1e-6
    assert np.hypot(*(places - hole[:2]).T).max() <= 900 - 60 + 1e-6


def test_a_frame_smaller_than_a_particle_holds_none() -> None:
    none = place_particles(np.random.default_rng(0), count=5, size_px=(50, 500), distance_px=60.0, forbidden=NOTHING)
    assert none.shape == (0, 2)


def motion(seed: int, *, frames: int = 16, dose: float = 2.5, excessive: float = 0.0) -> Motion:
    return draw_motion(
        np.random.default_rng(seed),
        frames=frames,
        dose_per_frame_e_A2=dose,
        pixel_size_A=0.8,
        drift_A=6.0,
        local_A=1.5,
        excessive_A=excessive,
    )


@pytest.mark.parametrize(("frames", "dose"), [(16, 2.5), (8, 5.0), (50, 1.0)])
def test_ordinary_motion_stays_within_the_limits_of_screening(frames: int, dose: float) -> None:
    for seed in range(100):
        shifts = motion(seed, frames=frames, dose=dose).shifts_px * 0.8
        assert np.abs(np.diff(shifts, axis=0)).max() < 5.0  # Å a frame
        assert np.ptp(shifts, axis=0).max() < 15.0  # Å a movie


@pytest.mark.parametrize(("frames", "dose"), [(16, 2.5), (8, 5.0), (50, 1.0)])
def test_excessive_drift_exceeds_the_limit_of_screening(frames: int, dose: float) -> None:
    for seed in range(100):
        shifts = motion(seed, frames=frames, dose=dose, excessive=EXCESSIVE_DRIFT_A).shifts_px * 0.8
        assert np.ptp(shifts, axis=0).max() > 15.0


def test_motion_is_zero_in_the_middle_frame_everywhere() -> None:
    places = np.random.default_rng(1).uniform(0, 500, (20, 2))
    moved = motion(4).at(places, (600, 500))  # [n, frames, 2]
    assert moved.shape == (20, 16, 2)
    np.testing.assert_array_equal(moved[:, 8], 0.0)
    assert np.abs(moved[:, 0]).min() > 0.0


def test_the_blur_of_the_frames_adds_up_to_the_motion_between_them() -> None:
    m = motion(7, frames=50, dose=1.0)
    # the trajectory is smooth: between the middles of two frames lie half of the travel of each
    between = (m.travel_px[1:] + m.travel_px[:-1]) / 2
    np.testing.assert_allclose(np.diff(m.shifts_px, axis=0), between, atol=0.03 * np.abs(m.travel_px).max())


def test_local_motion_has_the_asked_size_in_the_corners() -> None:
    m = motion(3)
    corners = np.array([[0, 0], [499, 0], [0, 599], [499, 599]], np.float64)
    local = (m.at(corners, (600, 500)) - m.shifts_px) * 0.8
    whole = local[:, -1] - local[:, 0]
    # course runs from nearly 0 to nearly 1 over 40 e/Å²; the first frame's middle is at 1.25 of 5 e/Å²
    assert np.sqrt((whole**2).sum(-1).mean()) == pytest.approx(1.5 * np.exp(-0.25), rel=0.01)


def test_one_movie_drifts_one_has_a_bad_ctf_and_a_large_set_has_a_carbon_edge() -> None:
    rng = np.random.default_rng(0)
    assert sorted(kinds_of(12, True, rng)) == ["bad_ctf", "carbon", "drift"] + ["ok"] * 9
    assert sorted(kinds_of(4, True, rng)) == ["bad_ctf", "drift", "ok", "ok"]
    assert kinds_of(3, True, rng) == ["ok"] * 3
    assert kinds_of(12, False, rng) == ["ok"] * 12


def test_a_tenth_of_the_particles_is_iron_loaded_and_all_lie_in_the_ice() -> None:
    params = SimulateMovies(preset="tiny")
    scene = draw_scene(params, "ok", np.random.default_rng(5))
    assert np.count_nonzero(scene.iron_atoms) == round(0.1 * len(scene.xy_px))
    assert np.abs(scene.heights_A).max() <= (params.ice_thickness_A - params.particle_diameter_A) / 2
    assert scene.heights_A.std() > 20.0


def test_an_iron_core_fits_the_cavity_and_is_ironoxyhydroxide() -> None:
    core = iron_core(2000, np.random.default_rng(0))
    assert core.diameter_A < 70.0  # the cavity of ferritin is 80 Å wide
    assert list(core.elements).count("Fe") == 2000
    assert list(core.elements).count("O") == 4000


def test_orientations_are_uniform_on_the_sphere() -> None:
    params = SimulateMovies(preset="demo", width_px=4000, height_px=4000, particles_per_movie=600)
    directions = draw_scene(params, "ok", np.random.default_rng(1)).rotations[:, 2]
    # the mean of n unit vectors has the variance 1/(3n) along each axis: five standard deviations
    assert np.abs(directions.mean(0)).max() < 5 / np.sqrt(3 * len(directions))
    # the mean square of each component is 1/3 with the variance (1/5 - 1/9)/n
    assert np.abs((directions**2).mean(0) - 1 / 3).max() < 5 * np.sqrt(4 / 45 / len(directions))


@pytest.mark.parametrize("preset", ["tiny", "demo", "tutorial"])
def test_the_facts_of_a_preset_are_complete_and_can_be_overridden(preset: str) -> None:
    params = SimulateMovies(preset=preset)  # type: ignore[arg-type]
    facts = params.facts()
    assert all(value is not None for value in facts.values())
    assert {"pixel_size_A", "voltage_kV", "cs_mm", "dose_per_frame_e_A2", "particle_diameter_A", "symmetry"} <= set(
        facts
    )
    other = SimulateMovies(preset=preset, pixel_size_A=1.23, movies=2)  # type: ignore[arg-type]
    assert other.facts()["pixel_size_A"] == 1.23
    assert other.movie_paths("x") == ["x/movies/mov_0001.tif", "x/movies/mov_0002.tif"]
