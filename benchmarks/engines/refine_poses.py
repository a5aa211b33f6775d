"""Speed of the continuous pose refinement, compared with the memory traffic that it needs.

    python -m benchmarks.engines.refine_poses --images 100 --box 250 --radius 124 --threads 2

The bytes of an evaluation are counted. They are the cache lines of the cube that the samples of an image touch, each once
(neighbouring samples share them), averaged over up to 64 of the poses because the number varies twofold with the direction,
plus 12 bytes of image and CTF per sample. The ceilings are measured in the same run, before and after the cases: a triad over
large arrays, and lines of the cube read in the order of a slice (64 bytes at scattered places, which no memory delivers at the
rate of a triad). "times" is the time of a case over that of the triad for the same bytes, by wall time and by CPU seconds. On
a shared machine only the latter means something. It prints a table and, as its last line, a JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import numba
import numpy as np

from benchmarks.shared.measured import best_of, peak_memory_GB, triad
from cryopipe.imaging.fourier_pixels import FourierPixels, half_plane
from cryopipe.imaging.geometry import random_rotations, rotation_from_vector
from cryopipe.imaging.optics import CtfParameters, ctf_stack
from cryopipe.kernels.poses import score_defoci
from cryopipe.kernels.slices import extract_slices
from cryopipe.poses.ctf import phase_terms
from cryopipe.poses.model import DefocusModel, ImageModel, OffsetModel, ScaleModel, Steps
from cryopipe.poses.refine_poses import refine_poses
from cryopipe.projection.half_cube import cube_shape
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import ReferenceMap

PIXEL_A = 1.0
LINE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--box", type=int, default=250)
    parser.add_argument("--radius", type=int, default=124)
    parser.add_argument("--degrees", type=float, default=0.5, help="distance of the start poses")
    parser.add_argument("--threads", type=int, default=numba.get_num_threads())
    options = parser.parse_args()
    numba.set_num_threads(options.threads)

    rng = np.random.default_rng(0)
    pixels = half_plane(options.box, options.radius)
    cube = smooth_cube(rng, options.radius)
    rotations = random_rotations(rng, options.images)
    images, parameters, sigma2 = simulate(rng, cube, rotations, pixels)
    axis = rng.normal(size=(options.images, 3))
    axis *= np.radians(options.degrees) / np.linalg.norm(axis, axis=1, keepdims=True)
    start, shifts = rotation_from_vector(axis) @ rotations, rng.normal(size=(options.images, 2)) * 0.3
    model = DefocusModel(parameters, scan=False)
    everything = ImageModel(ScaleModel(refine=True), model, OffsetModel(0.9 * options.box * PIXEL_A))

    given = (images, NoiseModel(sigma2), ReferenceMap(cube), start, shifts)

    def refined(evaluations: int, model: ImageModel | None = None) -> Callable[[], int]:
        steps = Steps(evaluations=evaluations)
        return lambda: int(refine_poses(*given, model=model or ImageModel(), steps=steps).evaluations.sum())

    weight, kx, ky = np.ones(len(pixels), np.float32), pixels.kx, pixels.ky
    terms, per_A = phase_terms(parameters, box=options.box, pixel_size_A=PIXEL_A)
    ones = np.ones_like(images.ctf)

    def scanned() -> int:
        score_defoci(
            cube, images.values, ones, weight, start, shifts, kx, ky, box=options.box, phase=terms, per_A=per_A,
            first=-500.0, step=50.0, count=21,
        )  # fmt: skip
        return options.images

    cases: dict[str, Callable[[], int]] = {
        "one evaluation, 5": refined(1),
        "to convergence, 5": refined(20),
        "to convergence, 8": refined(20, everything),
        "score_defoci, 21": scanned,
    }
    lines = float(np.mean([lines_of(r, pixels, cube.shape[2] - 1) for r in start[:64]]))
    each = LINE * lines + 12 * len(pixels)
    ceilings = measured_ceilings(cube, rotations[:24], pixels)
    print(
        f"{options.images} images, {len(pixels)} pixels, cube {cube.nbytes / 1e6:.0f} MB, {options.threads} threads; an "
        f"evaluation reads {each / 1e6:.2f} MB, {each / len(pixels):.0f} bytes per sample"
    )
    measured = {name: timed(case) for name, case in cases.items()}
    again = measured_ceilings(cube, rotations[:24], pixels)
    ceilings = {name: max(rate, again[name]) for name, rate in ceilings.items()}
    print_head(ceilings)
    rows = [described(name, *result, len(pixels), each, ceilings) for name, result in measured.items()]
    memory = 1e3 * peak_memory_GB()
    print(f"peak memory: {memory:.0f} MB")
    print(json.dumps({"benchmark": "refine_poses", **vars(options), "pixels": len(pixels), "bytes_an_evaluation": each,
                      "ceilings_GB_per_s": ceilings, "peak_memory_MB": memory, "rows": rows}))  # fmt: skip


def print_head(ceilings: dict[str, float]) -> None:
    """Print the ceilings of the machine and the head of the table."""
    print(
        f"ceilings: triad {ceilings['triad']:.1f} GB/s, {ceilings['triad a CPU s']:.1f} GB per CPU second; single lines "
        f"{ceilings['lines']:.1f} GB/s"
    )
    print(
        f"{'what':<24}{'seconds':>9}{'CPU s':>8}{'M samples/s':>13}{'a CPU s':>9}{'GB/s':>7}{'times':>7}{'by CPU':>8}"
        f"{'of lines':>10}"
    )


def timed(case: Callable[[], int]) -> tuple[float, float, int]:
    """Return seconds, CPU seconds and evaluated slices, each the least of four calls after one that compiles."""
    evaluations = case()
    return *best_of(4, case), evaluations


def described(
    name: str,
    seconds: float,
    cpu_seconds: float,
    evaluations: int,
    pixels: int,
    bytes_each: float,
    ceilings: dict[str, float],
) -> dict[str, float | str]:
    """Print and return a row of the table."""
    rate, cpu_rate = (evaluations * bytes_each / t / 1e9 for t in (seconds, cpu_seconds))
    row: dict[str, float | str] = {
        "what": name,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "evaluations": evaluations,
        "samples_per_s": evaluations * pixels / seconds,
        "samples_per_cpu_s": evaluations * pixels / cpu_seconds,
        "GB_per_s": rate,
        "times_its_traffic": ceilings["triad"] / rate,
        "times_its_traffic_by_cpu": ceilings["triad a CPU s"] / cpu_rate,
        "share_of_lines": rate / ceilings["lines"],
    }
    print(
        f"{name:<24}{seconds:>9.3f}{cpu_seconds:>8.2f}{evaluations * pixels / seconds / 1e6:>13.0f}"
        f"{evaluations * pixels / cpu_seconds / 1e6:>9.0f}{rate:>7.1f}{ceilings['triad'] / rate:>7.2f}"
        f"{ceilings['triad a CPU s'] / cpu_rate:>8.2f}{rate / ceilings['lines']:>10.0%}"
    )
    return row


def simulate(
    rng: np.random.Generator, cube: np.ndarray, rotations: np.ndarray, pixels: FourierPixels
) -> tuple[ParticleSpectra, CtfParameters, np.ndarray]:
    """Return images of slices of the cube, with CTFs and with noise of ten times their mean power."""
    n = len(rotations)
    u = rng.uniform(1e4, 2e4, n)
    parameters = CtfParameters(u, u - 300, rng.uniform(0, 180, n))
    step = 1 / (pixels.box * PIXEL_A)
    ctf = ctf_stack(pixels.kx * step, pixels.ky * step, parameters)
    values = extract_slices(cube, rotations, pixels.kx, pixels.ky) * ctf
    variance = 5 * float(np.mean(np.abs(values) ** 2))
    values += np.sqrt(variance) * rng.standard_normal((*values.shape, 2), np.float32).view(np.complex64)[..., 0]
    images = ParticleSpectra(pixels, values.astype(np.complex64), ctf, pixels.box, PIXEL_A, np.ones(n, np.int32))
    return images, parameters, np.full(pixels.radius + 1, variance)


def smooth_cube(rng: np.random.Generator, radius: int) -> np.ndarray:
    """Return a half cube of a compact object with a falling spectrum, so that the refinement can converge.

    It is white noise smoothed over a few grid steps, so that neighbouring voxels are correlated, as with padding.
    """
    shape = cube_shape(radius)
    noise = rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]
    for axis in range(3):
        noise = noise + 0.7 * (np.roll(noise, 1, axis) + np.roll(noise, -1, axis))
    edge = shape[2] - 1
    k = np.arange(-edge, edge + 1, dtype=np.float32)
    distance = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, edge:] ** 2)
    return (noise * np.exp(-distance / (0.5 * edge))).astype(np.complex64)


def corners_of(rotation: np.ndarray, pixels: FourierPixels, edge: int) -> np.ndarray:
    """Return the flat complex index of the lower corner of every sample's cell at padding 2."""
    place = np.stack([pixels.kx, pixels.ky], axis=1) @ (2 * rotation[:2])
    place = np.floor(np.where(place[:, :1] < 0, -place, place)).astype(np.int64)
    return ((place[:, 2] + edge) * (2 * edge + 1) + place[:, 1] + edge) * (edge + 1) + place[:, 0]


def lines_of(rotation: np.ndarray, pixels: FourierPixels, edge: int) -> int:
    """Return the number of different cache lines of the cube that the cells of one slice touch."""
    corner = corners_of(rotation, pixels, edge)
    offsets = [z * (2 * edge + 1) * (edge + 1) + y * (edge + 1) + x for z in (0, 1) for y in (0, 1) for x in (0, 1)]
    return len(np.unique((corner[:, None] + offsets) * 8 // LINE))


def line_rate(cube: np.ndarray, rotations: np.ndarray, pixels: FourierPixels) -> float:
    """Return the speed in GB/s at which cache lines of the cube are read in the order of a slice."""
    edge = cube.shape[2] - 1
    offsets = [z * (2 * edge + 1) * (edge + 1) + y * (edge + 1) for z in (0, 1) for y in (0, 1)]
    order = []
    for rotation in rotations:
        lines = (corners_of(rotation, pixels, edge)[:, None] + offsets).ravel() * 8 // LINE
        _, first = np.unique(lines, return_index=True)
        order.append(lines[np.sort(first)])
    every = np.concatenate(order)
    flat = cube.reshape(-1).view(np.float32)
    out = np.zeros(numba.get_num_threads(), np.float32)
    return every.size * LINE / best_of(4, lambda: _touch(flat, every, out))[0] / 1e9


@numba.njit(parallel=True, fastmath=True)
def _touch(flat: np.ndarray, lines: np.ndarray, out: np.ndarray) -> None:
    part = lines.size // out.size
    for t in numba.prange(out.size):
        total = np.float32(0)
        for i in range(t * part, (t + 1) * part):
            total += flat[lines[i] * 16]
        out[t] = total


def measured_ceilings(cube: np.ndarray, rotations: np.ndarray, pixels: FourierPixels) -> dict[str, float]:
    """Return GB/s, and GB per CPU second, of c = a + 2 b over arrays far larger than the caches, and GB/s of single lines."""
    rate, cpu_rate = triad()
    return {"triad": rate, "triad a CPU s": cpu_rate, "lines": line_rate(cube, rotations, pixels)}


if __name__ == "__main__":
    main()
