"""How fast is a reconstruction? Insertion, symmetry, and the way back to a map.

    python benchmarks/reconstruct.py --images 500 --box 128 --symmetry O

Prints a table and, as its last line, a JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable

import numba
import numpy as np

from cryopipe.imaging.fourier_pixels import half_plane
from cryopipe.imaging.geometry import random_rotations
from cryopipe.reconstruction.reconstruct import Reconstruction
from cryopipe.search.references import reference_cube
from cryopipe.search.spectra import ParticleSpectra


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--symmetry", default="O")
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    radius = options.box // 2 - 1
    pixels = half_plane(options.box, radius)
    shape = (options.images, len(pixels))
    values = rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]
    images = ParticleSpectra(
        pixels,
        values,
        rng.uniform(-1, 1, shape).astype(np.float32),
        options.box,
        1.0,
        np.ones(options.images, np.int32),
    )
    rotations, shifts, inverse = (
        random_rotations(rng, options.images),
        rng.normal(size=(options.images, 2)),
        np.ones(radius + 1),
    )
    threads = numba.get_num_threads()
    warm = Reconstruction.empty(16, 7, symmetry=options.symmetry)
    small = half_plane(16, 7)
    few = ParticleSpectra(small, values[:2, : len(small)], images.ctf[:2, : len(small)], 16, 1.0, np.ones(2, np.int32))
    warm.insert(few, rotations[:2], shifts[:2], inverse)
    warm.symmetrise()
    warm.solve()

    half = Reconstruction.empty(options.box, radius, symmetry=options.symmetry, expected_slices=options.images)
    rows: list[dict[str, object]] = []

    def timed(what: str, call: Callable[[], object]) -> object:
        start = time.perf_counter()
        result = call()
        rows.append({"what": what, "seconds": time.perf_counter() - start})
        return result

    timed("insert", lambda: half.insert(images, rotations, shifts, inverse))
    timed("symmetrise", half.symmetrise)
    volume = timed("solve", lambda: half.solve(threads=threads))
    timed("reference cube", lambda: reference_cube(volume, radius, threads=threads))
    samples = options.images * len(pixels) / float(rows[0]["seconds"])  # type: ignore[arg-type]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{options.images} images of {options.box} px, {options.symmetry}, state {half.nbytes / 1e6:.0f} MB, {threads} "
        "threads"
    )
    for row in rows:
        print(f"{row['what']:<16}{row['seconds']:>10.3f} s")
    # A sample adds to 8 voxels of 12 bytes, each read and written.
    print(f"{samples / 1e6:.1f} M samples/s inserted = {samples * 8 * 24 / 1e9:.1f} GB/s; peak memory {peak:.2f} GB")
    summary = {"benchmark": "reconstruct", "images": options.images, "box": options.box, "symmetry": options.symmetry}
    print(
        json.dumps({**summary, "samples_a_second": samples, "state_bytes": half.nbytes, "peak_gb": peak, "rows": rows})
    )


if __name__ == "__main__":
    main()
