"""Counts and sizes of a run come from the configuration and one header, and an unreadable file is no error here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryopipe.config.declaration.costs import Sizes
from cryopipe.io.movies import write_movie
from cryopipe.workflow.costs.prediction import Costs
from cryopipe.workflow.costs.sizes import ASSUMED_SHAPE, batch_sizes
from cryopipe.workflow.plan import Plan

ROOT = Path(__file__).parents[3]
FACTS = {"pixel_size_A": 1.0, "voltage_kV": 300, "cs_mm": 2.7, "particle_diameter_A": 100, "symmetry": "D2"}


def costs(tmp_path: Path, **sections: Any) -> Costs:
    tree = {"dataset": FACTS | {"movies": str(tmp_path / "*.mrcs")}} | sections
    return Costs(Plan.of(tree, root=ROOT, default="", results=tmp_path / "run"))


@pytest.fixture
def movies(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        frames = iter(np.zeros((5, 300, 400), np.uint16))
        write_movie(tmp_path / f"{name}.mrcs", frames, 1.0)
    return tmp_path


def test_a_header_tells_the_size_of_movies(movies: Path) -> None:
    sizes = costs(movies).sizes
    assert (sizes.images, sizes.frames, sizes.frame_px, sizes.frame_bytes) == (3, 5, 300 * 400, 2)
    assert sizes.movie_MB == pytest.approx(5 * 300 * 400 * 2 / 1e6, rel=0.01)
    assert sizes.symmetry_order == 4


def test_particles_are_those_that_an_area_holds_and_whose_boxes_do_not_cross_the_border(movies: Path) -> None:
    sizes = costs(movies, particles={"extract_particles": {"box_px": 100}}).sizes
    # half of 300 x 400 Å² in squares of 100 Å, and centres inside 200 x 300 px of it
    assert sizes.particles == 3 * 6 * (200 * 300) / (300 * 400)


def test_binning_and_cropping_change_the_sizes_of_later_steps(movies: Path) -> None:
    binned = costs(movies, movies={"align_movies": {"binning": 2}}).sizes
    assert (binned.micrograph_px, binned.micrograph_pixel_A) == (150 * 200, 2.0)
    cropped = costs(movies, particles={"extract_particles": {"downsample": 2, "box_px": 64}}).sizes
    assert (cropped.box_px, cropped.pixel_A) == (64, 2.0)


def test_a_user_can_state_the_particles_of_a_micrograph(movies: Path) -> None:
    stated = costs(movies, run={"particles_per_micrograph": 70}, particles={"extract_particles": {"box_px": 100}})
    assert stated.sizes.particles == 105


def test_a_first_movie_that_cannot_be_read_is_assumed_to_be_large_and_the_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.mrcs").write_bytes(b"no movie")
    found = costs(tmp_path)
    assert found.movie.shape == ASSUMED_SHAPE
    assert "a.mrcs" in found.movie.known_from
    assert found.predict(2)["align_movies"].memory_MB > 1000


def test_movies_of_an_archive_are_assumed_but_for_the_size_that_its_list_tells() -> None:
    plan = Plan.of({}, root=ROOT, default="config/test/archive.yaml")
    found = Costs(plan)
    assert found.movie.shape == ASSUMED_SHAPE
    name, file = next(iter(plan.archived.items()))
    if file.size is not None:
        assert found.movie.file_MB == pytest.approx(file.size / 1e6), name


def test_a_batch_has_its_share_of_the_particles() -> None:
    whole = Sizes(
        images=7, frames=1, frame_px=1, frame_bytes=1, movie_MB=1, micrograph_px=1, micrograph_pixel_A=1, particles=70,
        box_px=64, pixel_A=1, symmetry_order=1, budget_MB=1,
    )  # fmt: skip
    assert (batch_sizes(whole, 2).images, batch_sizes(whole, 2).particles) == (2, 20)


def test_a_stated_budget_bounds_what_is_predicted_for_particles(movies: Path) -> None:
    many = {"particles_per_micrograph": 100_000}
    stated, free = (costs(movies, run=many | more) for more in ({"memory_GB": 2.0}, {}))
    assert stated.sizes.budget_MB == 2000
    assert stated.predict(2)["refine_homogeneous"].memory_MB < free.predict(2)["refine_homogeneous"].memory_MB - 500
