"""How fast is the search? The grid search against the machine's matrix products, the adaptive one against the grid's.

    python benchmarks/search.py --images 1000 --box 64 --radius 16 --order 3 --symmetry O --shifts 3 --step 1
    python benchmarks/search.py --images 4000 --box 64 --radius 22 --references 50 --psi 60 --shifts 2   (2-D classes)
    python benchmarks/search.py --adaptive --images 200 --box 128 --radius 32 --snr 0.02 --symmetry C1

The adaptive search is timed on simulated particles (an asymmetric phantom of blobs, CTFs, white noise) and compared with
the exhaustive one on the grid of its second level (``--check`` images of it), the finest that fits into memory; the cost
of the exhaustive search on the last level's grid is computed from the measured rate. Seconds are wall; on a shared
machine read the CPU seconds. Prints a table and, as its last line, a JSON object.
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
from cryopipe.imaging.geometry import angular_distance_deg, random_rotations
from cryopipe.imaging.optics import CtfParameters, ctf_stack
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.kernels.slices import extract_slices
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.phases import shift_values
from cryopipe.projection.references import ReferenceMap, ReferenceSlices, reference_cube
from cryopipe.search.adaptive.cells import OrientationTree, child_shifts, in_plane_intervals, root_shifts, shift_centres
from cryopipe.search.adaptive.levels import AdaptiveOptions, plan_levels
from cryopipe.search.adaptive.search import search_adaptive
from cryopipe.search.exhaustive.search import search_bytes, search_poses
from cryopipe.search.grid import orientation_grid
from cryopipe.search.options import SearchOptions
from cryopipe.search.shifts import ShiftDisc, ShiftGrid, shift_grid


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
    parser.add_argument("--adaptive", action="store_true")
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--check", type=int, default=10, help="images of the exhaustive search beside the adaptive one")
    parser.add_argument("--guarantee", default="truth", choices=["truth", "best"])
    parser.add_argument("--coarseness", type=float, default=0.8)
    parser.add_argument("--final", type=float, default=0.5, help="final step over the angular resolution")
    options = parser.parse_args()
    result = adaptive(options) if options.adaptive else grid(options)
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


def adaptive(options: argparse.Namespace) -> dict[str, Any]:
    images, variance, cube, rotations, shifts = particles(options)
    sigma2, n = np.full(options.radius + 1, variance), options.images
    levels = plan_levels(
        options.box, options.radius, 0.65 * options.box, coarseness=options.coarseness, final_fraction=options.final
    )
    given = {
        "shifts": ShiftDisc(options.shifts),
        "symmetry": options.symmetry,
        "options": AdaptiveOptions(guarantee=options.guarantee),
    }
    search_adaptive(images.subset(slice(0, 4)), NoiseModel(sigma2), ReferenceMap(cube), levels, **given)  # compile
    start, cpu = time.perf_counter(), time.process_time()
    found = search_adaptive(images, NoiseModel(sigma2), ReferenceMap(cube), levels, **given)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    operators = symmetry_operators(options.symmetry)
    error = angular_distance_deg(found.rotations, rotations, operators)
    off = np.linalg.norm(found.shift_px - shifts, axis=1)
    print(f"{'order':>6}{'radius':>8}{'shift px':>10}{'scored/image':>14}{'of grid':>10}{'kept/image':>12}{'loss':>7}")
    rows = []
    for r in found.reports:
        level, share = r.level, r.scored / r.exhaustive
        print(
            f"{level.order:>6}{level.radius:>8}{level.shift_step_px:>10.2f}{r.scored / n:>14.0f}{share:>10.1e}"
            f"{r.kept / n:>12.0f}{r.median_loss:>7.1f}"
        )
        rows.append({**vars(level), "scored": r.scored, "of_grid": share, "kept": r.kept, "loss": r.median_loss})
    last = found.reports[-1]
    pixels = images.pixels.count_within(last.level.radius)
    whole = 4.0 * last.exhaustive * pixels
    rate = sgemm_rate(np.random.default_rng(0)) * 0.7e9
    print(
        f"{n} images: {seconds:.1f} s, {cpu:.1f} CPU s; pose error {np.median(error):.2f}° median, "
        f"{np.percentile(error, 90):.2f}° p90, shift {np.median(off):.2f} px; capped {found.capped.mean():.1%}; "
        f"exhaustive at 70 % of sgemm: {whole / rate:.0f} s"
    )
    return {
        "rows": rows, "seconds": seconds, "cpu_seconds": cpu, "exhaustive_seconds_at_70_percent": whole / rate,
        "pose_error_median_deg": float(np.median(error)), "pose_error_p90_deg": float(np.percentile(error, 90)),
        "capped": float(found.capped.mean()), **checked(options, images, sigma2, cube, levels, given),
    }  # fmt: skip


def checked(
    options: argparse.Namespace, images: ParticleSpectra, sigma2: np.ndarray, cube: np.ndarray, levels: Any, given: Any
) -> dict[str, Any]:
    """Search a few images exhaustively on the grid of the second level, a part of the orientations at a time."""
    few = images.subset(slice(0, options.check)).crop(levels[1].radius)
    start = time.perf_counter()
    ours = search_adaptive(few, NoiseModel(sigma2), ReferenceMap(cube), levels[:2], **given)
    seconds = time.perf_counter() - start
    tree = OrientationTree(levels[0].order, options.symmetry)
    cells = tree.children(levels[0].order, tree.roots()).ravel()
    cells = cells[tree.inside(levels[1].order, cells)]
    squares = child_shifts(root_shifts(options.shifts, levels[0].shift_step_px)).reshape(-1, 2)
    shifts = shift_centres(squares, levels[1].shift_step_px)
    best = np.full(len(few), -np.inf)
    poses, likelihood = np.zeros((len(few), 3, 3)), np.zeros(len(few))
    prior = np.log(tree.shares(levels[1].order, cells // in_plane_intervals(levels[1].order)))
    taken = 0.0
    for first in range(0, len(cells), 16384):
        part = tree.rotations(levels[1].order, cells[first : first + 16384])
        slices = extract_slices(cube, part, few.pixels.kx, few.pixels.ky)
        start = time.perf_counter()
        found = search_poses(
            few, NoiseModel(sigma2), ReferenceSlices(slices, log_prior=prior[first : first + 16384]), ShiftGrid(shifts)
        )
        taken += time.perf_counter() - start
        value = found.best_log_likelihood() + prior[first + found.best_state]
        better = value > best + 1e-3
        best[better], poses[better] = value[better], part[found.best_state[better]]
        likelihood[better] = found.best_log_likelihood()[better]
    same = angular_distance_deg(ours.rotations, poses, symmetry_operators(options.symmetry)) < 0.01
    print(
        f"{len(few)} images on the grid of level 2 ({len(cells)} x {len(shifts)} states): exhaustive {taken:.1f} s, "
        f"adaptive {seconds:.2f} s; same best state {same.mean():.0%}, largest deficit "
        f"{np.max(likelihood - ours.log_likelihood):.3f} nats"
    )
    return {"exhaustive_seconds": taken, "adaptive_seconds": seconds, "same_best": float(same.mean())}


def particles(options: argparse.Namespace) -> tuple[ParticleSpectra, float, np.ndarray, np.ndarray, np.ndarray]:
    """Return images, noise variance, cube, rotations and shifts of an asymmetric phantom (symmetrised on request)."""
    rng, box = np.random.default_rng(1), options.box
    operators = symmetry_operators(options.symmetry)
    where = rng.normal(size=(max(2, 40 // len(operators)), 3))
    where *= (0.32 * box * rng.uniform(0.55, 1, len(where)) / np.linalg.norm(where, axis=1))[:, None]
    axis = np.arange(box) - box // 2
    volume = np.zeros((box,) * 3)
    for centre in np.einsum("gij,bj->gbi", operators, where).reshape(-1, 3):
        x, y, z = (np.exp(-((axis - c) ** 2) / (2 * (0.027 * box) ** 2)) for c in centre)
        volume += z[:, None, None] * y[None, :, None] * x[None, None, :]
    cube = reference_cube(volume.astype(np.float32), options.radius)
    pixels, n = half_plane(box, options.radius), options.images
    rotations, shifts = random_rotations(rng, n), rng.uniform(-0.6, 0.6, (n, 2)) * options.shifts
    u = rng.uniform(8e3, 2e4, n)
    optics = CtfParameters(u, u - rng.uniform(0, 600, n), rng.uniform(0, 180, n), 300.0, 2.7, 0.1)
    factor = ctf_stack(pixels.kx / (3.0 * box), pixels.ky / (3.0 * box), optics)
    values = shift_values(extract_slices(cube, rotations, pixels.kx, pixels.ky) * factor, pixels, -shifts)
    variance = float((np.abs(values) ** 2).sum(axis=1).mean()) / box**2 / options.snr  # of one component
    noise = rng.standard_normal((*values.shape, 2), np.float32).view(np.complex64)[..., 0]
    values = values + noise * np.float32(np.sqrt(variance))
    return ParticleSpectra(pixels, values, factor, box, 3.0, np.ones(n, np.int32)), variance, cube, rotations, shifts


def sgemm_rate(rng: np.random.Generator) -> float:
    """Return GFLOP/s of a large float32 product with all BLAS threads: the ceiling."""
    a = rng.standard_normal((2048, 2048), np.float32)
    a @ a
    return 2 * 2048.0**3 / best_of(5, lambda: a @ a)[0] / 1e9


def best_of(repeats: int, call: Callable[[], object]) -> tuple[float, float]:
    """Return the least wall time and the CPU time of that run."""
    times = []
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - start, time.process_time() - cpu))
    return min(times)


if __name__ == "__main__":
    main()
