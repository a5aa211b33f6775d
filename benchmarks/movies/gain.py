"""Time, memory and accuracy of the gain step at real size, and its success over many seeds.

``python -m benchmarks.movies.gain [--frames 50] [--seeds 100] [--threads 2] [--method flat_field] [--movies 1]``

The large movies, 3838 x 3710 uint8 at 1 e/px/frame, are Poisson counts λ g (1 + specimen) with a gain of 3 %, a
specimen of 5 % that drifts, and 20 defects. The reference is given mirrored, rotated and as a divisor. The table over
seeds has frames of 512², 50 frames of 1 e/px, all 8 orientations, multiplying or dividing. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.fft
from threadpoolctl import threadpool_limits

from benchmarks.shared.measured import Stopwatch, peak_memory_GB
from cryopipe.config.movies import EstimateGain
from cryopipe.context import Context
from cryopipe.io.movies import write_movie
from cryopipe.io.mrc import read_image, write_image
from cryopipe.io.star import StarTable, make_optics, write_table
from cryopipe.movies import estimate_gain
from cryopipe.movies.gain.flat_field import flat_field
from cryopipe.movies.gain.orientation import ORIENTATIONS, SENSES, score_orientations

SHAPE, SIDE = (3710, 3838), 512
GAIN_SD, SPECIMEN_SD, PIXEL_A = 0.03, 0.05, 0.85
DEFECTS = 20


def specimen(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return a random field [y, x] with details down to about 25 px."""
    k = np.hypot(scipy.fft.fftfreq(shape[0])[:, None], scipy.fft.rfftfreq(shape[1])[None]).astype(np.float32)
    spectrum = scipy.fft.rfft2(rng.standard_normal(shape, dtype=np.float32)) * np.exp(-0.5 * (k / 0.02) ** 2)
    field = scipy.fft.irfft2(spectrum, s=shape)
    return np.asarray(field * (SPECIMEN_SD / field.std()), dtype=np.float32)


def response_of(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """Return the camera's response [y, x]: the inverse of its multiplicative gain."""
    return 1 + np.float32(GAIN_SD) * np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def turned_back(gain: np.ndarray, orientation: str, sense: str) -> np.ndarray:
    """Return the reference from which ``orientation`` and ``sense`` give the multiplicative ``gain``."""
    undone = np.rot90(gain if sense == "multiply" else 1 / gain, -(int(orientation.rsplit("rot", 1)[1]) // 90))
    return np.ascontiguousarray(undone[:, ::-1] if orientation.startswith("mirror") else undone)


def planted() -> tuple[np.ndarray, np.ndarray]:
    """Return flat indices of hot and of dead pixels."""
    places = np.random.default_rng(5).choice(SHAPE[0] * SHAPE[1], DEFECTS, replace=False)
    return places[: DEFECTS // 2], places[DEFECTS // 2 :]


def write_large(folder: Path, movies: int, n: int) -> None:
    """Write the movies, their table and the gain reference."""
    response = response_of(1, SHAPE)
    hot, dead = planted()
    response.flat[hot], response.flat[dead] = 3.0, 0.0

    def frames(seed: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(seed)
        field = specimen(rng, SHAPE)
        for i in range(n):
            moved = np.roll(field, (i // 4, -i // 6), axis=(0, 1))
            yield rng.poisson(np.maximum(response * (1 + moved), 0)).astype(np.uint8)

    names = [f"mov_{m:04d}" for m in range(movies)]
    for m, name in enumerate(names):
        write_movie(folder / f"{name}.tif", frames(100 + m), PIXEL_A)
    rows = pd.DataFrame(
        {"rlnMicrographMovieName": [str(folder / f"{x}.tif") for x in names], "rlnOpticsGroup": 1, "crpItem": names}
    )
    optics = make_optics(voltage_kV=300.0, cs_mm=2.7, amplitude_contrast=0.1, movie_pixel_size_A=PIXEL_A)
    write_table(folder / "movies.star", StarTable("movies", optics, rows))
    # the reference does not contain the defects
    write_image(folder / "given.mrc", turned_back(1 / response_of(1, SHAPE), "mirror_rot180", "divide"), PIXEL_A)


def run_large(folder: Path, method: str, threads: int) -> dict[str, Any]:
    """Run the step on the large movies and return the figures."""
    names = {"gain": "gain.mrc", "estimated": "e.mrc", "residual": "r.mrc", "defects": "d.tsv", "summary": "g.json"}
    outputs = {key: folder / value for key, value in names.items()}
    context = Context(step="estimate_gain", work_dir=folder / "work", threads=threads)
    inputs = {"movies": [folder / "movies.star"], "gain": folder / "given.mrc"}
    with Stopwatch() as watch:
        estimate_gain.main(inputs, outputs, EstimateGain(method=method), context)
    summary = json.loads(outputs["summary"].read_text())
    gain, _ = read_image(outputs["gain"])
    estimated, _ = read_image(outputs["estimated"])
    truth = 1 / response_of(1, SHAPE)
    good = gain > 0
    defects = np.concatenate(planted())
    error = gain[good] / truth[good]
    return {
        "method": method,
        "seconds": watch.seconds,
        "cpu_seconds": watch.cpu_seconds,
        "peak_GB": peak_memory_GB(),
        "orientation": summary["transform"]["orientation"],
        "inverted": summary["transform"]["inverted"],
        "score": summary["scores"][0]["score"],
        "margin": summary["score_margin"],
        "gain_error": float((error / error.mean(dtype=np.float64) - 1).std(dtype=np.float64)),
        "correlation": float(np.corrcoef(estimated[good], truth[good])[0, 1]),
        "electrons_per_pixel": summary["electrons_per_pixel"],
        "residual_sd": summary["residual"]["sd"],
        "residual_sd_expected": summary["residual"]["sd_expected_of_noise"],
        "defects_found": int((~good).flat[defects].sum()),
        "defects_false": int((~good).sum() - (~good).flat[defects].sum()),
    }


def sum_of_frames(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return response and sum of 50 frames [SIDE, SIDE] of 1 e/px with a drifting specimen."""
    rng = np.random.default_rng(seed)
    response = response_of(seed + 10_000, (SIDE, SIDE))
    field = specimen(rng, (SIDE, SIDE))
    # the sum of the counts of frames in which the specimen does not move is one Poisson number
    moved = [np.roll(field, (i, -i // 2), axis=(0, 1)) for i in range(10)]
    counts = [rng.poisson(np.maximum(5 * response * (1 + m), 0)) for m in moved]
    return response, np.sum(counts, axis=0).astype(np.float32)


def recovery(seeds: int, threads: int) -> dict[str, Any]:
    """Return how often each of the 16 transforms is found, with the least score and the largest of a wrong one."""
    found = {(o, s): 0 for o in ORIENTATIONS for s in SENSES}
    least, most = np.inf, 0.0
    for seed in range(seeds):
        response, total = sum_of_frames(seed)
        field = flat_field(total, sigma_px=32)
        for orientation, sense in found:
            file = turned_back(1 / response, orientation, sense)
            best, second, *_ = score_orientations(file, field.response, field.good, sigma_px=32, threads=threads)
            right = (best.orientation, best.sense, best.shift_yx_px) == (orientation, sense, (0, 0))
            found[orientation, sense] += right
            least, most = min(least, best.score if right else 0.0), max(most, second.score)
    for orientation in ORIENTATIONS:
        print(f"{orientation:<14}" + "  ".join(f"{s} {found[orientation, s]} of {seeds}" for s in SENSES), flush=True)
    print(f"least score of the right one {least:.0f} σ, largest of a wrong one {most:.1f} σ", flush=True)
    return {
        "seeds": seeds,
        "recovered": {f"{o} {s}": count for (o, s), count in found.items()},
        "least_score": least,
        "largest_wrong_score": most,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--movies", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=100, help="0 leaves the table out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--method", choices=["flat_field", "rank", "both"], default="flat_field")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    threadpool_limits(1, user_api="blas")  # as in the step
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # in another process, so that its memory is not counted
        process = multiprocessing.get_context("spawn").Process(
            target=write_large, args=(folder, arguments.movies, arguments.frames)
        )
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"the movies could not be written (exit code {process.exitcode})")
        table = []
        for method in ("flat_field", "rank") if arguments.method == "both" else (arguments.method,):
            table.append(run_large(folder, method, arguments.threads))
            print("\n".join(f"{key:<22} {value}" for key, value in table[-1].items()), flush=True)
    result: dict[str, Any] = {"large": table}
    if arguments.seeds:
        result["transforms"] = recovery(arguments.seeds, arguments.threads)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
