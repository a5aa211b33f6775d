"""Speed of a reconstruction (insertion, symmetry, and the transform back to a map), compared with that of the memory.

    python -m benchmarks.engines.reconstruct --images 300 --box 250 --symmetry O
    python -m benchmarks.engines.reconstruct --images 60 --box 128 --symmetry I --methods
    python -m benchmarks.engines.reconstruct --images 8 --box 512 --symmetry O

It prints a table and, as its last line, the same as a JSON object. The ceiling is a STREAM triad with as many threads in the
same run. Traffic is the least that must be moved. Inserting an image reads and writes once every cache line that has one of
its voxels (counted for up to 24 of the poses; 192 bytes per sample would do if lines were not 64 bytes wide). Symmetry reads
and writes every voxel of the half sphere once. Solving reads them, writes and reads the half-transformed columns, and writes
the map. Insertion is called four times, like the triad, and the best call counts. On a shared machine only CPU seconds mean
something. System seconds are mostly for pages that are touched for the first time. ``--methods`` compares rotating images
with rotating volumes for groups that are not axis permutations.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numba
import numpy as np

from benchmarks.shared.measured import Stopwatch, peak_memory_GB, triad
from cryopipe.imaging.fourier_pixels import half_plane
from cryopipe.imaging.geometry import random_rotations
from cryopipe.kernels._dispatch import cpu_threads
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import reference_cube
from cryopipe.reconstruction.memory import memory_need
from cryopipe.reconstruction.reconstruct import Reconstruction
from cryopipe.reconstruction.symmetrise import SymmetryPlan


@dataclass(frozen=True)
class Row:
    what: str
    seconds: float
    user_seconds: float
    system_seconds: float
    traffic_gb: float
    gb_per_s: float
    share_of_triad: float


def scene(box: int, count: int, rng: np.random.Generator) -> tuple[ParticleSpectra, np.ndarray, np.ndarray]:
    pixels = half_plane(box, box // 2 - 1)
    shape = (count, len(pixels))
    values = rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]
    ctf = rng.uniform(-1, 1, shape).astype(np.float32)
    images = ParticleSpectra(pixels, values, ctf, box, 1.0, np.ones(count, np.int32))
    return images, random_rotations(rng, count), rng.normal(size=(count, 2))


def line_bytes_per_sample(images: ParticleSpectra, rotations: np.ndarray, edge: int) -> float:
    """Return the bytes per sample that are read and written: the cache lines with the voxels of an image."""
    lines = 0
    side, width = 2 * edge + 1, edge + 1
    corners = np.array([(z * side + y) * width + x for z in (0, 1) for y in (0, 1) for x in (0, 1)])
    some = rotations[:24]
    for pose in some:
        at = 2 * np.stack([images.pixels.kx, images.pixels.ky], axis=1) @ pose[:2]
        x, y, z = np.floor(np.where(at[:, :1] < 0, -at, at)).astype(np.int64).T
        voxels = ((((z + edge) * side + y + edge) * width + x)[:, None] + corners).ravel()
        lines += len(np.unique(8 * voxels // 64)) + len(np.unique(4 * voxels // 64))
    return 2 * 64 * lines / (len(images.pixels) * len(some))


def run(options: argparse.Namespace, method: Any, ceiling: float) -> tuple[list[Row], SymmetryPlan, float]:
    box, radius, threads = options.box, options.box // 2 - 1, options.threads
    images, rotations, shifts = scene(box, options.images, np.random.default_rng(0))
    inverse = np.ones(radius + 1)
    half = Reconstruction.empty(box, radius, symmetry=options.symmetry, expected_slices=options.images, method=method)
    voxels = 2 * np.pi / 3 * (half.numerator.shape[2] - 1) ** 3
    copies = 1 if half.plan.rotates_volumes else len(half.plan.cosets)
    rotated = len(half.plan.cosets) - 1 if half.plan.rotates_volumes else 0
    columns = 8.0 * box * half.numerator.shape[1] * half.numerator.shape[2]
    rows: list[Row] = []

    def timed(what: str, traffic: float, call: Callable[[], Any]) -> Any:
        with Stopwatch() as watch:
            result = call()
        speed = traffic / watch.seconds / 1e9
        times = watch.seconds, watch.user_seconds, watch.system_seconds
        rows.append(Row(what, *times, traffic / 1e9, speed, speed / ceiling))
        return result

    def touch() -> None:
        half.numerator.fill(0)
        half.weight.fill(0)

    samples = options.images * len(images.pixels)
    moved = line_bytes_per_sample(images, rotations, half.numerator.shape[2] - 1) * copies
    timed("first touch of the cubes", half.nbytes, touch)
    for call in ("first", "second", "third", "fourth"):
        timed(
            f"insert, {call} call",
            (moved + 24) * samples,  # reads value, CTF; writes and reads what is inserted
            lambda: half.insert(images, rotations, shifts, inverse),
        )
    timed("symmetrise", 24 * voxels * (rotated + (len(half.plan.exact) > 1)), half.symmetrise)
    timed("shell weights", 4 * voxels, half.shell_weight)
    solving = 12 * voxels + 2 * columns + 4.0 * box**3
    volume = timed("solve", solving, lambda: half.solve(threads=threads))
    peak = peak_memory_GB()
    plan, size = half.plan, half.numerator.size
    half.numerator = half.weight = None  # so that their memory does not count for the reference
    timed("reference cube", 4.0 * box**3 + 2 * columns + 8.0 * size,
          lambda: reference_cube(volume, radius, threads=threads))  # fmt: skip
    return rows, plan, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--symmetry", default="O")
    parser.add_argument("--threads", type=int, default=numba.get_num_threads())
    parser.add_argument("--methods", action="store_true", help="both ways of imposing the cosets of a group")
    options = parser.parse_args()
    with cpu_threads(options.threads):
        small = argparse.Namespace(box=16, images=2, symmetry=options.symmetry, threads=options.threads)
        for method in ("copies", "interpolation"):
            run(small, method, 1.0)  # compiles
        ceiling, ceiling_cpu = triad()
        results = [run(options, m, ceiling) for m in (("copies", "interpolation") if options.methods else (None,))]
    data = 12 * options.images * len(half_plane(options.box, options.box // 2 - 1)) / 1e9
    print(
        f"{options.images} images of {options.box} px, {options.symmetry}, {options.threads} threads; triad {ceiling:.1f} GB/s"
    )
    summary: dict[str, Any] = {"benchmark": "reconstruct", **vars(options), "triad_gb_per_s": ceiling, "runs": []}
    for rows, plan, _ in results:
        chosen = "" if len(plan.cosets) == 1 else f", cosets by {plan.method}"
        print(f"\n{plan.group}: {len(plan.exact)} exact operators x {len(plan.cosets)} cosets{chosen}")
        if len(plan.cosets) > 1:
            print(
                f"expected on one core: copies {plan.copy_seconds:.2f} s, interpolation {plan.interpolation_seconds:.2f} s"
            )
        print(f"{'':<26}{'s':>9}{'user s':>9}{'system s':>9}{'GB':>9}{'GB/s':>9}{'of triad':>10}")
        for row in rows:
            print(
                f"{row.what:<26}{row.seconds:>9.3f}{row.user_seconds:>9.3f}{row.system_seconds:>9.3f}{row.traffic_gb:>9.2f}{row.gb_per_s:>9.1f}"
                f"{row.share_of_triad:>10.2f}"
            )
        summary["runs"].append({"method": plan.method, "rows": [asdict(row) for row in rows]})
    calls = results[0][0][1:5]
    seconds, cpu = min(row.seconds for row in calls), min(row.user_seconds + row.system_seconds for row in calls)
    times, times_cpu = seconds * ceiling / calls[0].traffic_gb, cpu * ceiling_cpu / calls[0].traffic_gb
    samples = options.images * len(half_plane(options.box, options.box // 2 - 1)) * len(results[0][1].cosets)
    print(
        f"\ninsertion {samples / seconds / 1e6:.1f} M samples/s, {samples / cpu / 1e6:.1f} M per CPU second, "
        f"{calls[0].traffic_gb / samples * 1e9:.0f} bytes per sample: {times:.2f} times the time of the triad for the same "
        f"memory traffic, {times_cpu:.2f} times by CPU seconds"
    )
    last, peak = results[-1][1:]
    predicted = memory_need(options.box, options.box // 2 - 1, interpolated=last.rotates_volumes).peak / 1e9
    print(f"memory: predicted peak of one half {predicted:.2f} GB; process {peak:.2f} GB with {data:.2f} GB of images")
    summary |= {"insertion_times_its_traffic": times, "insertion_times_its_traffic_by_cpu": times_cpu}
    summary |= {"predicted_peak_gb": predicted, "peak_gb": peak, "images_gb": data}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
