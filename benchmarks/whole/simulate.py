"""Time and memory of a preset: ``python -m benchmarks.whole.simulate demo [threads] [movies]``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.shared.measured import Stopwatch, peak_memory_GB
from cryopipe.config.simulation import SimulateMovies
from cryopipe.context import Context
from cryopipe.simulation import simulate_movies

NAMES = {
    "movies": "movies.star",
    "gain": "gain.mrc",
    "truth_particles": "truth_particles.star",
    "truth_movies": "truth_movies.star",
    "truth_map": "truth_map.mrc",
}


def main(preset: str = "demo", threads: str = "2", movies: str = "") -> None:
    params = SimulateMovies.model_validate({"preset": preset, "movies": int(movies) if movies else None})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        context = Context("simulate_movies", folder / "work", seed=1, threads=int(threads))
        with Stopwatch() as watch:
            simulate_movies.main({}, {key: folder / file for key, file in NAMES.items()}, params, context)
    count = params.value("movies")
    times = f"{watch.seconds:.1f} s, {watch.cpu_seconds:.1f} s of CPU ({watch.cpu_seconds / count:.2f} per movie)"
    print(f"{preset}: {count} movies, {times}, {1e3 * peak_memory_GB():.0f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
