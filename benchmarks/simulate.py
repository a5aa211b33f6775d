"""Time and memory of a preset: ``python benchmarks/simulate.py demo [threads] [movies]``."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

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
        wall, cpu = time.perf_counter(), time.process_time()
        simulate_movies.main({}, {key: folder / file for key, file in NAMES.items()}, params, context)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    count = params.value("movies")
    times = f"{wall:.1f} s, {cpu:.1f} s of CPU ({cpu / count:.2f} a movie)"
    print(f"{preset}: {count} movies, {times}, {peak:.0f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
