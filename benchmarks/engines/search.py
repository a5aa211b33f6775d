"""The speed of the search, compared with that of the machine's matrix products.

    python -m benchmarks.engines.search --images 1000 --box 64 --radius 16 --order 3 --symmetry O --shifts 3 --step 1
    python -m benchmarks.engines.search --images 4000 --box 64 --radius 22 --references 50 --psi 60 --shifts 2   (2-D classes)

Seconds are wall time. On a shared machine only CPU seconds mean something. It prints a table and, as its last line, a JSON
object.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from cryopipe.imaging.fourier_pixels import half_plane
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import ReferenceSlices
from cryopipe.search.exhaustive.search import search_bytes, search_poses
from cryopipe.search.grid import orientation_grid
from cryopipe.search.options import SearchOptions
from cryopipe.search.shifts import ShiftGrid, shift_grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--radius", type=int, default=16)
    parser.add_argument("--order", type=int, default=3)
    parser.add_argument("--symmetry", default="O")
    parser.add_argument("--references", type=int, default=0, help="2-D references, instead of a 3-D grid")
    parser.add_argument("--psi", type=int, default=60, help="in-plane angles of a 2-D reference")
    parser.add_argument("--shifts", type=float, default=3.0)
    parser.add_argument("--step", type=float, default=1.0)
    parser.add_argument("--base", action="store_true", help="give every image a shift of its own before the grid")
    parser.add_argument(
        "--peaked", type=float, default=0.3, help="strength of the references: larger makes posteriors narrower"
    )
    options = parser.parse_args()
    result = grid(options)
    result["peak_MB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(f"peak memory of the process {result['peak_MB']} MB")
    print(json.dumps({"benchmark": "search", "options": vars(options), **result}))


def grid(options: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    pixels = half_plane(options.box, options.radius)
    states = options.references * options.psi or len(orientation_grid(options.order, options.symmetry))
    shifts = shift_grid(options.shifts, options.step)

    def noise(rows: int) -> np.ndarray:
        return rng.standard_normal((rows, len(pixels), 2), np.float32).view(np.complex64)[..., 0]

    references = noise(states) * np.float32(options.peaked)
    ctf = rng.uniform(-1, 1, (options.images, len(pixels))).astype(np.float32)
    images = ParticleSpectra(pixels, noise(options.images), ctf, options.box, 1.0, np.ones(options.images, np.int32))
    sigma2 = np.ones(options.radius + 1)
    base = rng.normal(size=(options.images, 2)) if options.base else None
    e_step = 4.0 * options.images * len(shifts) * states * len(pixels) * (1 + 1 / (2 * len(shifts)))
    ceiling = sgemm_rate(rng)

    def search(accumulate: bool) -> Callable[[], object]:
        return lambda: search_poses(
            images,
            NoiseModel(sigma2),
            ReferenceSlices(references, n_references=max(1, options.references)),
            ShiftGrid(shifts, base_px=base),
            options=SearchOptions(accumulate=accumulate),
        )

    search_poses(
        images.subset(slice(0, 40)),
        NoiseModel(sigma2),
        ReferenceSlices(references[:64]),
        ShiftGrid(shifts),
        options=SearchOptions(accumulate=True),
    )  # compile
    size = {"images": options.images, "shifts": len(shifts), "states": states, "pixels": len(pixels)}
    print(f"{size}, {numba.get_num_threads()} threads; sgemm {ceiling:.0f} GFLOP/s")
    print(f"{'what':<16}{'seconds':>10}{'CPU s':>10}{'GFLOP/s':>10}{'of sgemm':>10}{'needs MB':>10}")
    rows = []
    for name, flops, accumulate in (("E-step", e_step, False), ("E- and M-step", 2 * e_step, True)):
        seconds, cpu = best_of(2, search(accumulate))
        rate = flops / seconds / 1e9
        needs = search_bytes(options.images, states, len(shifts), len(pixels), accumulate=accumulate) / 2**20
        row = {"what": name, "seconds": seconds, "cpu_seconds": cpu, "gflops": rate, "of_sgemm": rate / ceiling}
        rows.append(row | {"needs_MB": needs})
        print(f"{name:<16}{seconds:>10.2f}{cpu:>10.2f}{rate:>10.1f}{rate / ceiling:>10.0%}{needs:>10.0f}")
    return {**size, "sgemm_gflops": ceiling, "rows": rows}


def sgemm_rate(rng: np.random.Generator) -> float:
    """Return GFLOP/s of a large float32 product with all BLAS threads: the ceiling."""
    a = rng.standard_normal((2048, 2048), np.float32)
    a @ a
    return 2 * 2048.0**3 / best_of(5, lambda: a @ a)[0] / 1e9


def best_of(repeats: int, call: Callable[[], object]) -> tuple[float, float]:
    """Return the least wall time, and the CPU time of the same run."""
    times = []
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - start, time.process_time() - cpu))
    return min(times)


if __name__ == "__main__":
    main()
