"""Time and accuracy of movie alignment at real size, on frames whose motion is known.

``python -m benchmarks.movies.movies [--frames 50] [--small] [--super] [--threads 2] [--peer relion] [--resolution 3.5]``

The large movie is semi-synthetic. Each electron of the real 3838 x 3710 micrograph of ../shared/realdata is put into a random
frame (so frames are independent, as Poisson counts are), at a random place in its pixel. It is moved along a smooth track and
by a bend of 8 px, and counted with the probability with which the camera's pixel counts. So the motion is known exactly at
every place. The gain reference is given mirrored and rotated. The Cramér-Rao bound of a frame's shift, from the spectrum of the
micrograph, is printed, too: no method can be better. A shift or a bend that is the same in all frames is not motion, so judge
the error without it. The error with it is printed beside it.

All frames have the whole signal of the micrograph, also the ring of ice at 3.7 Å, of which real frames have only a part in
common. The bound up to 8 Å, and ``--resolution 8``, show the result without it. ``--peer relion`` aligns the same movie with
RELION's own program, with 5 x 5 patches and dose weighting. ``--super`` is a super-resolution movie of 7676 x 7420, to measure
the memory. The small movie is made from a phantom. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ctf import estimate
from threadpoolctl import threadpool_limits

from benchmarks.shared.measured import Stopwatch, peak_memory_GB
from benchmarks.shared.moving_specimen import (
    COUNTS_PER_ELECTRON,
    PIXEL_A,
    REAL,
    bend,
    in_a_child,
    phantom_frames,
    track,
    write_large,
    write_super,
)
from cryopipe.config.movies import AlignMovies
from cryopipe.ctf.defocus import Microscope
from cryopipe.io.movies import open_movie, write_movie
from cryopipe.io.mrc import read_image, write_image
from cryopipe.io.star import StarTable, make_optics, write_table
from cryopipe.movies.align_movies import Camera, align_movie
from cryopipe.movies.gain.defects import plan_repair
from cryopipe.movies.gain.flat_field import flat_field
from cryopipe.movies.gain.orientation import as_correction, score_orientations
from cryopipe.movies.motion.star import polynomial_field, read_motion, read_polynomial

#: Exposure of the whole movie, e/Å².
DOSE = 47.6


def found_orientation(movie: Path, gain: Path) -> np.ndarray:
    """Return the gain in the orientation of the frames, found by correlation with their sum."""
    given, _ = read_image(gain)
    with open_movie(movie) as frames:
        total = np.zeros(frames.shape[1:], dtype=np.float32)
        for raw in frames.iterate():
            total += raw
    field = flat_field(total, sigma_px=50.0)
    best, second, *_ = score_orientations(given, field.response, field.good, sigma_px=50.0)
    print(f"gain: {best.orientation}, {best.sense} (score {best.score:.0f}, next {second.score:.0f})", flush=True)
    return as_correction(given, orientation=best.orientation, sense=best.sense)


def print_bounds(n: int) -> None:
    """Print the Cramér-Rao bounds of a frame's shift, from the spectrum of the counts, which is 1 without a specimen.

    With the power a(k) of the specimen in one frame, the information on each shift relative to the mean of all is
    Σ (2πk)² 2 n a² / (1 + n a) over the frequencies of half the plane (Knapp & Carter 1976,
    doi:10.1109/TASSP.1976.1162830, for n receivers).
    """
    image, _ = read_image(REAL)
    counts = np.maximum(np.rint(image / COUNTS_PER_ELECTRON), 0).astype(np.float32)
    spectrum = np.abs(np.fft.rfft2(counts - counts.mean())) ** 2 / counts.size / counts.mean()
    k = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None])
    ring = (400 * k).astype(int).ravel()
    number = np.bincount(ring)
    a = np.maximum(np.bincount(ring, spectrum.ravel()) / number - 1, 0) / n
    middle = (np.arange(len(number)) + 0.5) / 400
    information = number * (2 * np.pi * middle) ** 2 * n * a**2 / (1 + n * a)
    for finest in (20.0, 8.0, 3.5):
        used = (middle < PIXEL_A / finest) & (middle > PIXEL_A / 600)
        bound = 1 / np.sqrt(information[used].sum())
        print(f"bound of a frame's shift from frequencies up to {finest:g} Å: {bound:.3f} px per axis")


INNER = np.linspace(-0.45, 0.45, 19)


def errors(shifts: np.ndarray, local: np.ndarray, n: int, bent_movie: bool) -> dict[str, float]:
    """Return rms errors in px in the inner 90 %: of mean shifts and of the field without constant parts, and of the field."""
    steps = track(n) if bent_movie else np.rint(track(n))
    truth = np.stack(
        [(bend(i, n, INNER, INNER) if bent_movie else 0) + (steps[i] - steps[n // 2])[:, None, None]
         + np.zeros((2, 19, 19)) for i in range(n)]
    )  # fmt: skip
    found = (shifts - shifts[n // 2])[:, :, None, None] + local - local[n // 2]
    rest = found + truth
    moving = rest - rest.mean(axis=0)
    return {
        "frames_rms_px": float(np.sqrt((moving.mean(axis=(2, 3)) ** 2).mean())),
        "field_rms_px": float(np.sqrt((moving**2).mean())),
        "field_from_reference_rms_px": float(np.sqrt((rest**2).mean())),
    }


def measure(
    name: str, path: Path, pixel_size_A: float, dose: float, threads: int, gain: np.ndarray | None = None, **more: Any
) -> tuple[np.ndarray, dict[str, object]]:
    """Align one movie. Return the plain average and the figures."""
    params = AlignMovies(dose_per_frame_e_A2=dose, pre_exposure_e_A2=0.0, **more)
    with Stopwatch() as watch, open_movie(path) as movie:
        n, *shape = movie.shape
        image = np.ones(shape, dtype=np.float32) if gain is None else gain
        camera = Camera(image, plan_repair(np.zeros((0, 2), dtype=np.int64), image.shape))
        result = align_movie(
            movie,
            camera,
            params,
            pixel_size_A=pixel_size_A,
            voltage_kV=300.0,
            frame_rng=np.random.default_rng,
            threads=threads,
        )
    y, x = ((INNER + 0.5) * length for length in shape)
    local = np.zeros((n, 2, 19, 19))
    if result.local is not None:
        local = np.stack([result.local.at(i, y, x) for i in range(n)])
    peak = peak_memory_GB()
    error = errors(result.motion.shifts_px, local, n, gain is not None)
    if more.get("binning", 1) > 1:  # the super-resolution movie: noise, without a truth
        error = dict.fromkeys(error, float("nan"))
    return result.average, row(name, "cryopipe", watch, threads, error, peak)


def row(
    movie: str, program: str, watch: Stopwatch, threads: int, error: dict[str, float], peak_GB: float
) -> dict[str, object]:
    """Print one line of the table and return it."""
    print(
        f"{movie:<18} {program:<9} {watch.seconds:7.1f} s {watch.cpu_seconds:7.1f} CPU s  {threads} threads  "
        f"peak {peak_GB:.2f} GB  rms error: "
        f"frames {error['frames_rms_px']:.3f} px, field {error['field_rms_px']:.3f} px "
        f"({error['field_from_reference_rms_px']:.3f} px from the reference frame)",
        flush=True,
    )
    return {
        "movie": movie, "program": program, "seconds": watch.seconds, "cpu_seconds": watch.cpu_seconds, "threads": threads,
        "peak_GB": peak_GB,
    } | error  # fmt: skip


def measure_relion(
    name: str, path: Path, pixel_size_A: float, dose: float, n: int, threads: int, gain: np.ndarray
) -> tuple[Path, dict[str, object]]:
    """Align the movie at ``path`` with RELION (5 x 5 patches, dose weighting). Return its average and the figures."""
    folder = path.parent
    # RELION flips the rows of a TIFF on reading, but not those of an MRC file
    write_image(folder / "gain_relion.mrc", np.ascontiguousarray(gain[::-1]), pixel_size_A)
    optics = make_optics(voltage_kV=300.0, cs_mm=2.7, amplitude_contrast=0.1, movie_pixel_size_A=pixel_size_A)
    rows = pd.DataFrame({"rlnMicrographMovieName": [path.name], "rlnOpticsGroup": [1]})
    write_table(folder / "in.star", StarTable("movies", optics, rows))
    command = (
        "relion_run_motioncorr --use_own --i in.star --o relion/ --first_frame_sum 1 --last_frame_sum -1 "
        f"--bin_factor 1 --bfactor 150 --dose_per_frame {dose} --preexposure 0 --patch_x 5 --patch_y 5 "
        f"--dose_weighting --save_noDW --gainref gain_relion.mrc --j {threads}"
    )
    with Stopwatch(children=True) as watch:
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    file = next((folder / "relion").rglob(f"{path.stem}.star"))
    shifts, local = read_motion(file).shifts_px, np.zeros((n, 2, 19, 19))
    model = read_polynomial(file)
    if model is not None:
        local = polynomial_field(model, np.arange(n), INNER[::-1], INNER)  # its rows run the other way
    flip = np.array([1.0, -1.0])
    error = errors(shifts * flip, local * flip[None, :, None, None], n, True)
    average = next((folder / "relion").rglob(f"{path.stem}_noDW.mrc"))
    return average, row(name, "RELION", watch, threads, error, peak_memory_GB(children=True))


def print_rings(name: str, image: np.ndarray) -> None:
    """Print the result of each estimator for an average: mean defocus, and how far the rings are fitted."""
    found = {who: estimate(who, image, PIXEL_A, Microscope(300.0, 2.7, 0.1)) for who in ("ctffind", "gctf", "xmipp")}
    texts = [f"{who} {defocus.mean_A:.0f} Å, rings to {rings:.2f} Å" for who, (defocus, rings, _) in found.items()]
    print(f"CTF of {name}: " + "; ".join(texts), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="only the phantom of 1024 x 1024 x 16")
    parser.add_argument("--super", action="store_true", help="only the super-resolution movie")
    parser.add_argument("--resolution", type=float, help="finest_resolution_A of the step")
    parser.add_argument("--peer", choices=["relion"])
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    threadpool_limits(1, user_api="blas")  # as in the step
    n, threads, table = arguments.frames, arguments.threads, []
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.tif"
        write_movie(small, phantom_frames(16, 1024), 1.0)
        for _ in range(2):  # the first run compiles
            table.append(measure("1024 x 1024 x 16", small, 1.0, 2.0, threads)[1])
        if arguments.super:
            movie, name = Path(folder) / "super.tif", f"7676 x 7420 x {n}"
            in_a_child(write_super, movie, n)
            table.append(measure(name, movie, PIXEL_A / 2, DOSE / n, threads, binning=2)[1])
        elif not arguments.small:
            movie, gain_file, name = Path(folder) / "large.tif", Path(folder) / "gain.mrc", f"3838 x 3710 x {n}"
            in_a_child(write_large, movie, gain_file, n)
            print_bounds(n)
            gain = found_orientation(movie, gain_file)
            more = {} if arguments.resolution is None else {"finest_resolution_A": arguments.resolution}
            average, figures = measure(name, movie, PIXEL_A, DOSE / n, threads, gain, **more)
            table.append(figures)
            print_rings("the original", read_image(REAL)[0])
            print_rings("the average", average)
            if arguments.peer == "relion":
                theirs, figures = measure_relion(name, movie, PIXEL_A, DOSE / n, n, threads, gain)
                table.append(figures)
                print_rings("RELION's average", read_image(theirs)[0])
    print(json.dumps(table))


if __name__ == "__main__":
    main()
