"""Time and memory of refinement and 2-D classification for many particles, within a memory budget and without one.

    python -m benchmarks.particles.many_particles refine --folder DIR    # 2,500, 10,000 and 40,000 particles of box 128
    python -m benchmarks.particles.many_particles classify --folder DIR  # 2,500, 10,000, 40,000 and 100,000 of box 64

Each size runs in a process of its own within the budget, and the largest also without a budget. The script prints wall and
CPU seconds, the peak of the resident memory, whether the results have the same bits, and the exponents of growth over the
sizes. Particles are phantoms (an octahedral shell in some hundred views, with CTF and white noise) that are written in
chunks and kept in the folder. A few iterations are run (``--iterations``). They include every kind of pass over the images:
global search, local refinement, defoci, residuals, reconstruction to a working radius and to the full one. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numba
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.shared.particle_sets import write_phantoms
from cryopipe.classes2d import classify_2d
from cryopipe.config.classes2d import Classify2d
from cryopipe.config.refinement import RefineHomogeneous
from cryopipe.context import Context
from cryopipe.imaging.filters import low_pass
from cryopipe.io.mrc import write_volume
from cryopipe.refinement import refine_homogeneous
from cryopipe.simulation.particle_images import density

DIAMETER_A = 125.0
#: box, pixel size in Å, signal-to-noise ratio, budget in GB, sizes
CASES: dict[str, tuple[int, float, float, float, list[int]]] = {
    "refine": (128, 1.7, 0.05, 2.0, [2500, 10000, 40000]),
    "classify": (64, 3.0, 0.05, 1.0, [2500, 10000, 40000, 100000]),
}


def simulate(folder: Path, count: int, *, box: int, pixel_size_A: float, snr: float) -> None:
    """Write particles and the initial map."""
    model = write_phantoms(folder, count, box=box, pixel_size_A=pixel_size_A, snr=snr)
    truth = density(model, box=box, pixel_size_A=pixel_size_A)
    write_volume(folder / "start.mrc", low_pass(truth, pixel_size_A, 20.0), pixel_size_A)


def refine(folder: Path, work: Path, options: argparse.Namespace, context: Context) -> Path:
    """Run the refinement and return a file that holds its result."""
    names = ("half1.mrc", "half2.mrc", "map.mrc", "mask.mrc", "particles.star", "fsc.star", "history.tsv")
    outputs = {name.split(".")[0]: work / name for name in names}
    params = RefineHomogeneous(
        symmetry="O",
        particle_diameter_A=DIAMETER_A,
        initial_lowpass_A=20.0,
        mask_start_resolution_A=12.0,
        offset_range_A=0.096 * DIAMETER_A,
        max_iterations=options.iterations,
        global_iterations=1,
        # so that the few iterations refine defoci, too
        defocus_start_resolution_A=20.0,
    )
    inputs = {"particles": folder / "particles.star", "map": folder / "start.mrc"}
    refine_homogeneous.main(inputs, outputs, params, context)
    return outputs["half1"]


def classify(folder: Path, work: Path, options: argparse.Namespace, context: Context) -> Path:
    """Run the classification and return a file that holds its result."""
    outputs = {"classes": work / "classes.mrcs"}
    outputs |= {name: work / f"{name}.star" for name in ("particles", "model")} | {"history": work / "history.tsv"}
    params = Classify2d(
        particle_diameter_A=DIAMETER_A,
        offset_range_A=12.0,
        classes=options.classes,
        iterations=options.iterations,
        max_resolution_A=8.0,
    )
    classify_2d.main({"particles": [folder / "particles.star"]}, outputs, params, context)
    return outputs["classes"]


def one(options: argparse.Namespace) -> None:
    """Run one size in this process and print its time and memory as one line of JSON."""
    folder = options.folder / str(options.count)
    work = folder / f"run_{options.memory_GB:g}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    context = Context(
        "refine_homogeneous" if options.what == "refine" else "classify_2d",
        work / "work",
        threads=options.threads,
        memory_bytes=int(options.memory_GB * 1e9) if options.memory_GB else None,
        log=logging.getLogger("benchmark"),
    )
    numba.set_num_threads(options.threads)
    run = refine if options.what == "refine" else classify
    with threadpool_limits(options.threads):
        start, processor = time.perf_counter(), time.process_time()
        result = run(folder, work, options, context)
        wall, processor = time.perf_counter() - start, time.process_time() - processor
    found = {
        "particles": options.count,
        "memory_GB": options.memory_GB,
        "seconds": round(wall, 1),
        "cpu_seconds": round(processor, 1),
        "peak_GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3),
        "sha256": hashlib.sha256(result.read_bytes()).hexdigest()[:16],
    }
    print(json.dumps(found), flush=True)


def exponent(runs: list[dict[str, Any]], what: str) -> float:
    """Return the exponent with which a quantity grows with the number of particles, between the two largest sizes."""
    (small, large) = runs[-2:]
    return float(np.log(large[what] / small[what]) / np.log(large["particles"] / small["particles"]))


def main() -> None:
    """Run all sizes, or the one that a process is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(CASES))
    parser.add_argument("--folder", type=Path, required=True, help="particles are kept here, and found again")
    parser.add_argument("--particles", type=int, nargs="*", help="sizes, rising")
    parser.add_argument("--memory-GB", type=float, default=None, help="budget; 0: none")
    parser.add_argument("--only-budget", action="store_true", help="leave out the run without a budget")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    box, pixel_size_A, snr, budget_GB, sizes = CASES[options.what]
    options.memory_GB = budget_GB if options.memory_GB is None else options.memory_GB
    if options.count:
        one(options)
        return
    sizes = options.particles or sizes
    runs: dict[float, list[dict[str, Any]]] = {options.memory_GB: [], 0.0: []}
    for count in sizes:
        folder = options.folder / str(count)
        if not (folder / "particles.star").exists():
            folder.mkdir(parents=True, exist_ok=True)
            simulate(folder, count, box=box, pixel_size_A=pixel_size_A, snr=snr)
        both = count == sizes[-1] and not options.only_budget
        for memory_GB in (options.memory_GB, 0.0) if both else (options.memory_GB,):
            command = [
                sys.executable,
                "-m",
                "benchmarks.particles.many_particles",
                options.what,
                "--folder",
                str(options.folder),
                "--count",
                str(count),
            ]
            command += ["--memory-GB", str(memory_GB), "--iterations", str(options.iterations)]
            command += ["--threads", str(options.threads), "--classes", str(options.classes)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            print(output.strip(), flush=True)
            runs[memory_GB].append(json.loads(output.splitlines()[-1]))
    within = runs[options.memory_GB]
    summary: dict[str, Any] = {}
    for free in runs[0.0]:
        summary = {
            "same bits": within[-1]["sha256"] == free["sha256"],
            "times the wall time without a budget": round(within[-1]["seconds"] / free["seconds"], 2),
            "times the CPU time": round(within[-1]["cpu_seconds"] / free["cpu_seconds"], 2),
        }
    if len(within) > 1:
        summary |= {f"exponent of {name}": round(exponent(within, name), 2) for name in ("cpu_seconds", "peak_GB")}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
