"""Speed of every kernel at sizes of your choice, compared with the measured ceilings of the machine.

``python -m benchmarks.engines.kernels [--device cpu|gpu] [--box 128] [--images 200] [--kernels extract_slices ...] [--threads
2]``

Bytes and FLOPs are counted for the algorithm (stated with each case), so GB/s may exceed that of the memory if the cube is
in caches. The share is that of the nearer ceiling: memory copy or float32 matrix product. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryopipe.kernels import peaks, poses, rings, slices
from cryopipe.kernels._dispatch import cpu_threads
from cryopipe.kernels.devices import gpu_unavailable_reason
from cryopipe.selftest import machine
from cryopipe.selftest.row import mover


@dataclass(frozen=True)
class Case:
    """One call: how many work items it has, and bytes and FLOPs of each."""

    call: Callable[[], object]
    items: int
    item: str
    bytes_each: float
    flops_each: float


def half_plane(radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies of the half plane in the order of the engines: by shell, then ky, then kx."""
    ky, kx = (a.ravel() for a in np.mgrid[-radius : radius + 1, 0 : radius + 1])
    inside = (kx**2 + ky**2 <= radius**2) & ((kx > 0) | (ky > 0))
    kx, ky = kx[inside].astype(np.int32), ky[inside].astype(np.int32)
    order = np.lexsort((kx, ky, np.rint(np.hypot(kx, ky))))
    return kx[order], ky[order]


def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    pairs = rng.standard_normal((*shape[:-1], 2 * shape[-1]), dtype=np.float32)
    return pairs.view(np.complex64)


def pose_cases(options: argparse.Namespace, move: Callable[[Any], Any]) -> dict[str, Case]:
    rng = np.random.default_rng(1)
    radius, n = options.box // 2 - 1, options.images
    padded = options.padding * radius + 1
    kx, ky = (move(k) for k in half_plane(radius))
    count = int(kx.size)
    cube = noise(rng, (2 * padded + 1, 2 * padded + 1, padded + 1))
    weight = move(np.zeros(cube.shape, np.float32))
    cube = move(cube)
    matrices = np.linalg.qr(rng.standard_normal((n, 3, 3)))[0]
    matrices *= np.sign(np.linalg.det(matrices))[:, None, None]
    rotations = move(matrices.astype(np.float32))
    images, ctf = move(noise(rng, (n, count))), move(rng.random((n, count), dtype=np.float32))
    variance, shifts = move(np.ones(count, np.float32)), move(rng.standard_normal((n, 2)))
    numerator = move(np.zeros(weight.shape, np.complex64))
    geometry = {"padding": options.padding}
    with_box = {"padding": options.padding, "box": options.box}
    head = (cube, images, ctf, variance)
    defocus = {"phase": move(rng.standard_normal((n, 5))), "per_A": move(np.full(n, 1e-4)), "defocus_terms": 1}
    seven = {"with_scale": True, **defocus, **with_box}
    return {
        # 8 complex reads, 1 write; 15 for the position, 7 complex interpolations of 6
        "extract_slices": Case(
            lambda: slices.extract_slices(cube, rotations, kx, ky, **geometry), n * count, "samples", 72, 57
        ),
        # 12 bytes of data; 8 voxels of 12 bytes read and written
        "insert_slices": Case(
            lambda: slices.insert_slices(numerator, weight, rotations, images, ctf, kx, ky, **geometry),
            n * count, "samples", 204, 80,
        ),
        # 8 complex reads, image and CTF; value and gradient 120, columns 60, 20 sums of 6
        "normal_equations (5)": Case(
            lambda: poses.normal_equations(*head, rotations, shifts, kx, ky, **with_box), n * count, "samples", 80, 300
        ),
        "normal_equations (7)": Case(
            lambda: poses.normal_equations(*head, rotations, shifts, kx, ky, **seven), n * count, "samples", 80, 460
        ),
    }  # fmt: skip


def image_cases(options: argparse.Namespace, move: Callable[[Any], Any]) -> dict[str, Case]:
    rng = np.random.default_rng(2)
    n, count = options.images, options.pixels
    values = move(rng.random((n, count), dtype=np.float32))
    ring = move(rng.integers(0, 256, count).astype(np.int32))
    position = move(rng.uniform(0, 255, count).astype(np.float32))
    side = options.map_side
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    smooth = np.fft.irfft2(
        np.fft.rfft2(rng.standard_normal((side, side))) * np.exp(-800 * frequency**2), s=(side, side)
    )
    response = move((smooth / smooth.std()).astype(np.float32))
    return {
        "ring_sums": Case(lambda: rings.ring_sums(values, ring, 256), n * count, "pixels", 8, 1),
        "equiphase_average": Case(lambda: rings.equiphase_average(values, position, 256), n * count, "pixels", 8, 6),
        "find_peaks": Case(lambda: peaks.find_peaks(response, 20.0, threshold=1.0), side * side, "pixels", 5, 9),
    }  # fmt: skip


def peak_memory_MB(device: str) -> float:
    """Return the largest resident memory of this process, or the size of CuPy's pool on the GPU."""
    if device == "gpu":
        import cupy

        return cupy.get_default_memory_pool().total_bytes() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--box", type=int, default=128, help="particle box in pixels")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--padding", type=int, default=2)
    parser.add_argument("--pixels", type=int, default=100_000, help="pixels of a CTF spectrum's band")
    parser.add_argument("--map-side", type=int, default=2048, help="side of the response map for peaks")
    parser.add_argument("--repeat", type=int, default=3, help="the best of so many is reported")
    parser.add_argument("--kernels", nargs="*", help="names (or their beginnings); default: all")
    options = parser.parse_args()
    if options.device == "gpu" and (reason := gpu_unavailable_reason()):
        parser.error(f"no GPU can be used: {reason}")
    move = mover(options.device)
    copy, product = machine.copy_gbytes(options.device), machine.sgemm_gflops(options.device)
    print(f"ceilings: memory copy {copy:.1f} GB/s, float32 matrix product {product:.0f} GFLOP/s")
    print(f"{'kernel':<24}{'seconds':>10}{'Mitems/s':>10}{'GB/s':>9}{'GFLOP/s':>9}{'share':>8}  of")
    results = {}
    with cpu_threads(options.threads):
        cases = {**pose_cases(options, move), **image_cases(options, move)}
        for name, case in cases.items():
            if options.kernels and not any(name.startswith(wanted) for wanted in options.kernels):
                continue
            seconds = machine.best_seconds(case.call, options.device, options.repeat)
            gbytes, gflops = (case.items * each / seconds / 1e9 for each in (case.bytes_each, case.flops_each))
            shares = {"memory copy": gbytes / copy, "matrix product": gflops / product}
            nearer = max(shares, key=lambda k: shares[k])
            rate = case.items / seconds / 1e6
            print(
                f"{name:<24}{seconds:>10.4f}{rate:>10.1f}{gbytes:>9.1f}{gflops:>9.1f}{shares[nearer]:>8.0%}  {nearer}"
            )
            results[name] = {"seconds": seconds, "million_items_per_s": rate, "item": case.item, "GB_per_s": gbytes,
                             "GFLOP_per_s": gflops, "share": shares[nearer], "ceiling": nearer}  # fmt: skip
    memory = peak_memory_MB(options.device)
    print(f"peak memory: {memory:.0f} MB")
    print(json.dumps({**vars(options), "copy_GB_per_s": copy, "sgemm_GFLOP_per_s": product, "peak_memory_MB": memory,
                      "results": results}))  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
