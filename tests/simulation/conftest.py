"""One small simulated dataset and one sampled particle, shared by the tests that look at them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cryopipe.config.simulation import SimulateMovies
from cryopipe.context import Context
from cryopipe.simulation import simulate_movies
from cryopipe.simulation.atoms import apoferritin
from cryopipe.simulation.potential import PotentialSampler

NAMES = {
    "movies": "movies.star",
    "gain": "gain.mrc",
    "truth_particles": "truth_particles.star",
    "truth_movies": "truth_movies.star",
    "truth_map": "truth_map.mrc",
}
SMALL = SimulateMovies(
    preset="tiny", movies=4, width_px=320, height_px=288, frames=5, dose_per_frame_e_A2=8.0, particles_per_movie=12
)


@pytest.fixture(scope="session")
def sampler() -> PotentialSampler:
    """Apoferritin at 2 Å/px."""
    return PotentialSampler(apoferritin(), 2.0)


@pytest.fixture(scope="session")
def simulate() -> Callable[..., dict[str, Path]]:
    """Run the step in a folder as the workflow does: paths in its tables are relative to that folder."""

    def run(folder: Path, params: SimulateMovies = SMALL, *, threads: int = 1, seed: int = 3) -> dict[str, Path]:
        folder.mkdir(parents=True, exist_ok=True)
        before = Path.cwd()
        os.chdir(folder)
        try:
            context = Context("simulate_movies", Path("work"), seed=seed, threads=threads)
            simulate_movies.main({}, {key: Path("out") / name for key, name in NAMES.items()}, params, context)
        finally:
            os.chdir(before)
        return {key: folder / "out" / name for key, name in NAMES.items()}

    return run


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, simulate: Callable[..., dict[str, Path]]) -> dict[str, Path]:
    return simulate(tmp_path_factory.mktemp("simulation"))
