"""Time and accuracy of movie alignment at real size, on frames whose motion is known.

``python benchmarks/movies.py [--frames 50] [--small] [--threads 2] [--peer relion]``

The large movie is semi-synthetic: the real 3838 x 3710 micrograph of ../shared/realdata is thinned binomially into
frames (which keeps them independent, as Poisson counts are), each moved by whole pixels along a track and bent by 8 px
(pixel by pixel, to the nearest). The small one is drawn from a phantom. ``--peer relion`` aligns the same large movie
with RELION's own program, 5 x 5 patches and dose weighting. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from cryopipe.config.ctf import EstimateCtfCtffind
from cryopipe.config.movies import AlignMovies
from cryopipe.ctf.estimate_ctf_ctffind import estimate_ctf
from cryopipe.ctf.model import Microscope
from cryopipe.io.movies import open_movie, write_movie
from cryopipe.io.mrc import read_image
from cryopipe.io.star import StarTable, make_optics, read_blocks, write_table
from cryopipe.movies.align_movies import Camera, align_movie
from cryopipe.movies.defects import plan_repair
from cryopipe.movies.motion_star import read_motion

REAL = Path(__file__).resolve().parents[2] / "shared/realdata/micrographs/fei-extended.mrc"
COUNTS_PER_ELECTRON = 106.0


def track(n: int) -> np.ndarray:
    """Whole-pixel motion [n, 2] of the specimen: fast at first, then a slow drift."""
    t = np.arange(n)
    return np.rint(np.stack([12.0 * (1 - np.exp(-t / 4.0)) + 0.05 * t, -8.0 * (1 - np.exp(-t / 6.0))], axis=1)).astype(
        int
    )


def bend(i: int, n: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Motion [2, a, b] of the specimen beside the track at rows y and columns x (-1/2 to 1/2): 8 px edge to edge."""
    amount = 14.0 * (np.exp(-(n // 2) / 8.0) - np.exp(-i / 8.0))
    v, u = y[:, None], x[None, :]
    return amount * np.stack([0.6 * u + v**2, u * v - 0.6 * v])


def thinned_frames(path: Path, n: int):
    """Yield n frames uint8 of the micrograph at ``path``, moved along :func:`track` and by :func:`bend`."""
    image, _ = read_image(path)
    rng = np.random.default_rng(1)
    rest = np.maximum(np.rint(image / COUNTS_PER_ELECTRON), 0).astype(np.int64)
    for i in range(n):
        frame = rng.binomial(rest, 1.0 / (n - i))
        rest -= frame
        yield bent(frame.astype(np.uint8), track(n)[i] - track(n)[n // 2], i, n)


def bent(frame: np.ndarray, shift: np.ndarray, i: int, n: int) -> np.ndarray:
    """Move a frame by a shift (x, y) and the bend of frame i, each pixel from the nearest one; borders mirror."""
    out = np.empty_like(frame)
    ny, nx = frame.shape
    columns = np.arange(nx)
    for y in range(ny):
        dx, dy = bend(i, n, np.array([y / ny - 0.5]), columns / nx - 0.5)[:, 0]
        u, v = np.rint(columns - shift[0] - dx).astype(int), np.rint(y - shift[1] - dy).astype(int)
        out[y] = frame[ny - 1 - abs(ny - 1 - abs(v)), nx - 1 - abs(nx - 1 - abs(u))]
    return out


def phantom_frames(n: int, size: int):
    """Yield n frames uint8 [size, size] of blobs under Poisson noise, moved along :func:`track`."""
    rng = np.random.default_rng(2)
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    noise = np.fft.rfft2(rng.standard_normal((size, size)))
    specimen = np.fft.irfft2(noise * np.exp(-0.5 * (k / 0.05) ** 2), s=(size, size))
    specimen *= 0.1 / specimen.std()
    for x, y in track(n):
        yield rng.poisson(np.roll(2.0 * (1.0 + specimen), (y, x), axis=(0, 1)).clip(0)).astype(np.uint8)


INNER = np.linspace(-0.45, 0.45, 19)


def errors(shifts: np.ndarray, local: np.ndarray, n: int, bent_movie: bool) -> tuple[float, float]:
    """Return rms errors in px: of the mean shift of frames, and of the field in the inner 90 % (zero at frame n/2)."""
    truth = np.stack(
        [(bend(i, n, INNER, INNER) if bent_movie else 0) + (track(n)[i] - track(n)[n // 2])[:, None, None]
         + np.zeros((2, 19, 19)) for i in range(n)]
    )  # fmt: skip
    found = (shifts - shifts[n // 2])[:, :, None, None] + local - local[n // 2]
    rest = found + truth
    whole = rest.mean(axis=(2, 3))
    whole -= whole.mean(axis=0)  # which frame is the reference is no error
    return float(np.sqrt((whole**2).mean())), float(np.sqrt((rest**2).mean()))


def measure(
    name: str, path: Path, pixel_size_A: float, dose: float, n: int, threads: int, bent_movie: bool
) -> tuple[np.ndarray, dict[str, object]]:
    """Align one movie; return the plain average and the figures."""
    params = AlignMovies(dose_per_frame_e_A2=dose, pre_exposure_e_A2=0.0)
    start, cpu = time.perf_counter(), time.process_time()
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
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    y, x = ((INNER + 0.5) * length for length in shape)
    local = np.zeros((n, 2, 19, 19))
    if result.local is not None:
        local = np.stack([result.local.at(i, y, x) for i in range(n)])
    whole, field = errors(result.motion.shifts_px, local, n, bent_movie)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return result.average, row(name, "cryopipe", seconds, cpu, threads, whole, field, peak)


def row(
    movie: str, program: str, seconds: float, cpu: float, threads: int, whole: float, field: float, peak_GB: float
) -> dict[str, object]:
    """Print one line of the table and return it."""
    print(
        f"{movie:<18} {program:<9} {seconds:7.1f} s {cpu:7.1f} CPU s  {threads} threads  "
        f"rms error: frames {whole:.3f} px, field {field:.3f} px  peak {peak_GB:.2f} GB",
        flush=True,
    )
    return {
        "movie": movie, "program": program, "seconds": seconds, "cpu_seconds": cpu, "threads": threads,
        "frames_rms_px": whole, "field_rms_px": field, "peak_GB": peak_GB,
    }  # fmt: skip


def measure_relion(name: str, path: Path, pixel_size_A: float, dose: float, n: int, threads: int) -> dict[str, object]:
    """Align the movie at ``path`` with RELION: 5 x 5 patches, dose weighting."""
    folder = path.parent
    optics = make_optics(voltage_kV=300.0, cs_mm=2.7, amplitude_contrast=0.1, movie_pixel_size_A=pixel_size_A)
    rows = pd.DataFrame({"rlnMicrographMovieName": [path.name], "rlnOpticsGroup": [1]})
    write_table(folder / "in.star", StarTable("movies", optics, rows))
    command = (
        "relion_run_motioncorr --use_own --i in.star --o relion/ --first_frame_sum 1 --last_frame_sum -1 "
        f"--bin_factor 1 --bfactor 150 --dose_per_frame {dose} --preexposure 0 --patch_x 5 --patch_y 5 "
        f"--dose_weighting --save_noDW --j {threads}"
    )
    start = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.perf_counter() - start
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    file = next((folder / "relion").rglob(f"{path.stem}.star"))
    shifts, local = read_motion(file).shifts_px, np.zeros((n, 2, 19, 19))
    blocks = read_blocks(file)
    if "local_motion_model" in blocks:
        model = blocks["local_motion_model"].sort_values("rlnMotionModelCoeffsIdx")
        coefficients = model["rlnMotionModelCoeff"].to_numpy().reshape(2, 6, 3)
        v, u = np.meshgrid(INNER[::-1], INNER, indexing="ij")  # its rows run the other way
        space = np.stack([np.ones_like(u), u, u**2, v, v**2, u * v])
        time_powers = np.arange(n)[:, None].astype(float) ** np.arange(1, 4)
        local = np.einsum("cst,syx,ft->fcyx", coefficients, space, time_powers)
    flip = np.array([1.0, -1.0])
    whole, field = errors(shifts * flip, local * flip[None, :, None, None], n, True)
    return row(name, "RELION", seconds, cpu, threads, whole, field, after.ru_maxrss * 1024 / 1e9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="only the phantom of 1024 x 1024 x 16")
    parser.add_argument("--peer", choices=["relion"])
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    threadpool_limits(1, user_api="blas")  # as in the step
    n, threads, table = arguments.frames, arguments.threads, []
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.tif"
        write_movie(small, phantom_frames(16, 1024), 1.0)
        for _ in range(2):  # the first run compiles
            table.append(measure("1024 x 1024 x 16", small, 1.0, 2.0, 16, threads, False)[1])
        if not arguments.small:
            large, name, pixel, dose = Path(folder) / "large.tif", f"3838 x 3710 x {n}", 0.85378, 47.6 / n
            write_movie(large, thinned_frames(REAL, n), pixel)
            average, figures = measure(name, large, pixel, dose, n, threads, True)
            table.append(figures)
            if arguments.peer == "relion":
                table.append(measure_relion(name, large, pixel, dose, n, threads))
            start = time.perf_counter()
            estimate = estimate_ctf(average, pixel, Microscope(300.0, 2.7, 0.1), EstimateCtfCtffind())
            print(
                f"CTF of the average: {time.perf_counter() - start:.1f} s on one core, {estimate.fit.defocus}, "
                f"rings to {estimate.resolution_A:.2f} Å"
            )
    print(json.dumps(table))


if __name__ == "__main__":
    main()
