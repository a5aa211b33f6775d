"""How fast is the continuous pose refinement? Samples a second of the normal equations, and a whole refinement.

    python benchmarks/refine_poses.py --images 400 --box 128 --radius 50

One sample reads 8 neighbours of the cube (64 bytes) and 12 bytes of the image: the memory traffic, if the cube stayed
in no cache. Prints a table and, as its last line, a JSON object.
"""

from __future__ import annotations

import argparse
import json
import time

import numba
import numpy as np

from cryopipe.imaging.fourier_pixels import half_plane
from cryopipe.imaging.geometry import random_rotations, rotation_from_vector
from cryopipe.kernels.slices import extract_slices
from cryopipe.search.half_cube import cube_shape
from cryopipe.search.refine_poses import refine_poses
from cryopipe.search.spectra import ParticleSpectra

BYTES_A_SAMPLE = 64 + 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--radius", type=int, default=50)
    parser.add_argument("--degrees", type=float, default=1.0, help="distance of the start poses")
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    pixels = half_plane(options.box, options.radius)
    cube = smooth_cube(rng, options.radius)
    rotations = random_rotations(rng, options.images)
    values = extract_slices(cube, rotations, pixels.kx, pixels.ky)
    ctf = np.ones(values.shape, np.float32)
    images = ParticleSpectra(pixels, values, ctf, options.box, 1.0, np.ones(options.images, np.int32))
    sigma2 = np.full(options.radius + 1, float(np.mean(np.abs(values) ** 2)) * 10)
    axis = rng.normal(size=(options.images, 3))
    axis *= np.radians(options.degrees) / np.linalg.norm(axis, axis=1, keepdims=True)
    start, shifts = rotation_from_vector(axis) @ rotations, rng.normal(size=(options.images, 2)) * 0.3

    refine_poses(images.subset(slice(0, 2)), sigma2, cube, start[:2], shifts[:2], iterations=2)  # compile
    rows = []
    for name, iterations in (("one evaluation", 1), ("to convergence", 20)):
        began = time.perf_counter()
        found = refine_poses(images, sigma2, cube, start, shifts, iterations=iterations)
        seconds = time.perf_counter() - began
        rows.append(
            {
                "what": name,
                "seconds": seconds,
                "images_a_second": options.images / seconds,
                "evaluations": found.iterations,
            }
        )
    samples = options.images * len(pixels) / rows[0]["seconds"]
    stream = copy_rate()
    print(
        f"{options.images} images, {len(pixels)} pixels, cube {cube.nbytes / 1e6:.0f} MB, {numba.get_num_threads()} "
        "threads"
    )
    print(f"{'what':<16}{'seconds':>10}{'images/s':>10}{'evaluations':>13}")
    for row in rows:
        print(f"{row['what']:<16}{row['seconds']:>10.3f}{row['images_a_second']:>10.0f}{row['evaluations']:>13}")
    print(
        f"{samples / 1e6:.0f} M samples/s, {samples * BYTES_A_SAMPLE / 1e9:.1f} GB/s read; a copy moves {stream:.1f} "
        "GB/s"
    )
    summary = {
        "benchmark": "refine_poses",
        "images": options.images,
        "pixels": len(pixels),
        "samples_a_second": samples,
    }
    print(json.dumps({**summary, "copy_gb_s": stream, "rows": rows}))


def smooth_cube(rng: np.random.Generator, radius: int) -> np.ndarray:
    """Return a half cube with a falling spectrum, so that refinement has something to converge to."""
    shape = cube_shape(radius)
    noise = rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]
    edge = shape[2] - 1
    k = np.arange(-edge, edge + 1, dtype=np.float32)
    distance = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, edge:] ** 2)
    return (noise * np.exp(-distance / (0.5 * edge))).astype(np.complex64)


def copy_rate() -> float:
    """Return GB/s read and written by a large copy."""
    source = np.ones(1 << 26, np.float32)
    target = np.empty_like(source)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(times) / 1e9


if __name__ == "__main__":
    main()
