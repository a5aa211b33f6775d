"""Time and accuracy of movie alignment at real size, on frames whose motion is known.

``python benchmarks/movies.py [--frames 50] [--small] [--threads 2]``

The large movie is semi-synthetic: the real 3838 x 3710 micrograph of ../shared/realdata is thinned binomially into
frames (which keeps them independent, as Poisson counts are), each moved by whole pixels. The small one is drawn from
a phantom.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from threadpoolctl import threadpool_limits

from cryopipe.config.ctf import EstimateCtfCtffind
from cryopipe.config.movies import AlignMovies
from cryopipe.ctf.estimate_ctf_ctffind import estimate_ctf
from cryopipe.ctf.model import Microscope
from cryopipe.io.movies import open_movie, write_movie
from cryopipe.io.mrc import read_image
from cryopipe.movies.align_movies import Camera, align_movie
from cryopipe.movies.defects import plan_repair

REAL = Path(__file__).resolve().parents[2] / "shared/realdata/micrographs/fei-extended.mrc"
COUNTS_PER_ELECTRON = 106.0


def track(n: int) -> np.ndarray:
    """Whole-pixel motion [n, 2] of the specimen: fast at first, then a slow drift."""
    t = np.arange(n)
    return np.rint(np.stack([12.0 * (1 - np.exp(-t / 4.0)) + 0.05 * t, -8.0 * (1 - np.exp(-t / 6.0))], axis=1)).astype(
        int
    )


def thinned_frames(path: Path, n: int):
    """Yield n frames uint8 of the micrograph at ``path``, moved along :func:`track`."""
    image, _ = read_image(path)
    rng = np.random.default_rng(1)
    rest = np.maximum(np.rint(image / COUNTS_PER_ELECTRON), 0).astype(np.int64)
    for i, (x, y) in enumerate(track(n)):
        frame = rng.binomial(rest, 1.0 / (n - i))
        rest -= frame
        yield np.roll(frame, (y, x), axis=(0, 1)).astype(np.uint8)


def phantom_frames(n: int, size: int):
    """Yield n frames uint8 [size, size] of blobs under Poisson noise, moved along :func:`track`."""
    rng = np.random.default_rng(2)
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    noise = np.fft.rfft2(rng.standard_normal((size, size)))
    specimen = np.fft.irfft2(noise * np.exp(-0.5 * (k / 0.05) ** 2), s=(size, size))
    specimen *= 0.1 / specimen.std()
    for x, y in track(n):
        yield rng.poisson(np.roll(2.0 * (1.0 + specimen), (y, x), axis=(0, 1)).clip(0)).astype(np.uint8)


def measure(name: str, path: Path, pixel_size_A: float, dose: float, n: int, threads: int) -> np.ndarray:
    """Align one movie and print time, memory and error."""
    params = AlignMovies(dose_per_frame_e_A2=dose, pre_exposure_e_A2=0.0)
    start = time.perf_counter()
    with open_movie(path) as movie:
        shape = movie.shape[1:]
        camera = Camera(np.ones(shape, dtype=np.float32), plan_repair(np.zeros((0, 2), dtype=np.int64), shape))
        result = align_movie(
            movie,
            camera,
            params,
            pixel_size_A=pixel_size_A,
            voltage_kV=300.0,
            frame_rng=np.random.default_rng,
            workers=threads,
        )
    seconds = time.perf_counter() - start
    truth = -track(n)
    error = result.motion.shifts_px - truth
    error -= error.mean(axis=0)  # which frame is the reference is no error
    peak = psutil.Process().memory_info().rss / 1e9
    print(
        f"{name}: {seconds:.1f} s with {threads} threads, rms error {np.sqrt((error**2).mean()):.3f} px, "
        f"largest {np.abs(error).max():.3f} px, residual {result.motion.residual_px:.3f} px, rss {peak:.2f} GB"
    )
    return result.average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="only the phantom of 1024 x 1024 x 16")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    threadpool_limits(1, user_api="blas")  # as in the step
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.tif"
        write_movie(small, phantom_frames(16, 1024), 1.0)
        for _ in range(2):  # the first run compiles
            measure("1024 x 1024 x 16", small, 1.0, 2.0, 16, arguments.threads)
        if not arguments.small:
            large = Path(folder) / "large.tif"
            write_movie(large, thinned_frames(REAL, arguments.frames), 0.85378)
            average = measure(
                f"3838 x 3710 x {arguments.frames}",
                large,
                0.85378,
                47.6 / arguments.frames,
                arguments.frames,
                arguments.threads,
            )
            start = time.perf_counter()
            estimate = estimate_ctf(average, 0.85378, Microscope(300.0, 2.7, 0.1), EstimateCtfCtffind())
            print(
                f"CTF of the average: {time.perf_counter() - start:.1f} s on one core, {estimate.fit.defocus}, "
                f"rings to {estimate.resolution_A:.2f} Å"
            )


if __name__ == "__main__":
    main()
