"""How fast is the global search? GFLOP/s of `search_poses` against the matrix products that this machine can do.

    python benchmarks/search.py --images 1000 --box 64 --radius 16 --order 3 --symmetry O --shifts 3 --step 1

Prints a table and, as its last line, a JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numba
import numpy as np

from cryopipe.imaging.fourier_pixels import half_plane
from cryopipe.search.global_search import search_poses
from cryopipe.search.grid import orientation_grid, shift_grid
from cryopipe.search.spectra import ParticleSpectra


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--radius", type=int, default=16)
    parser.add_argument("--order", type=int, default=3)
    parser.add_argument("--symmetry", default="O")
    parser.add_argument("--shifts", type=float, default=3.0)
    parser.add_argument("--step", type=float, default=1.0)
    parser.add_argument(
        "--peaked", type=float, default=0.3, help="strength of the references: larger makes posteriors narrower"
    )
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    pixels = half_plane(options.box, options.radius)
    states = len(orientation_grid(options.order, options.symmetry))
    shifts = shift_grid(options.shifts, options.step)

    def noise(rows: int) -> np.ndarray:
        return rng.standard_normal((rows, len(pixels), 2), np.float32).view(np.complex64)[..., 0]

    references = noise(states) * np.float32(options.peaked)
    ctf = rng.uniform(-1, 1, (options.images, len(pixels))).astype(np.float32)
    images = ParticleSpectra(pixels, noise(options.images), ctf, options.box, 1.0, np.ones(options.images, np.int32))
    sigma2 = np.ones(options.radius + 1)
    e_step = 4.0 * options.images * len(shifts) * states * len(pixels) * (1 + 1 / (2 * len(shifts)))
    ceiling = sgemm_rate(rng)

    def search(accumulate: bool) -> Callable[[], object]:
        return lambda: search_poses(images, sigma2, references, shifts, accumulate=accumulate)

    search_poses(images.subset(slice(0, 40)), sigma2, references[:64], shifts, accumulate=True)  # compile
    rows = []
    for name, flops, accumulate in (("E-step", e_step, False), ("E- and M-step", 2 * e_step, True)):
        seconds = best_of(2, search(accumulate))
        rows.append(
            {
                "what": name,
                "seconds": seconds,
                "gflops": flops / seconds / 1e9,
                "of_sgemm": flops / seconds / 1e9 / ceiling,
            }
        )
    size = {"images": options.images, "shifts": len(shifts), "states": states, "pixels": len(pixels)}
    print(f"{size}, {numba.get_num_threads()} threads; sgemm {ceiling:.0f} GFLOP/s")
    print(f"{'what':<16}{'seconds':>10}{'GFLOP/s':>10}{'of sgemm':>10}")
    for row in rows:
        print(f"{row['what']:<16}{row['seconds']:>10.2f}{row['gflops']:>10.1f}{row['of_sgemm']:>10.0%}")
    print(json.dumps({"benchmark": "search", **size, "sgemm_gflops": ceiling, "rows": rows}))


def sgemm_rate(rng: np.random.Generator) -> float:
    """Return GFLOP/s of a large float32 product with all BLAS threads: the ceiling."""
    a = rng.standard_normal((2048, 2048), np.float32)
    a @ a
    return 2 * 2048.0**3 / best_of(5, lambda: a @ a) / 1e9


def best_of(repeats: int, call: Callable[[], object]) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
