"""Time 2-D classification at the size of the tutorial: 4,000 particles of 120 px in 50 classes on two cores.

    python -m benchmarks.particles.classify_2d --stages 2     # times some iterations and estimates the time of all
    python -m benchmarks.particles.classify_2d                # runs all iterations

Particles are phantoms (hollow octahedral shells, CTF, white noise). `many_particles.py` is for many more of them.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

import numba
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.shared.particle_sets import write_phantoms
from cryopipe.classes2d.classify_2d import classify
from cryopipe.classes2d.expectation import expectation
from cryopipe.classes2d.maximisation import maximisation
from cryopipe.classes2d.particle_stack import ParticleStack, open_particle_stack
from cryopipe.classes2d.schedule import make_schedule
from cryopipe.classes2d.state import starting_state
from cryopipe.config.classes2d import Classify2d
from cryopipe.context import Context
from cryopipe.imaging.masks import soft_circle
from cryopipe.io.star import read_table

DIAMETER_A = 125.0


def phantoms(folder: Path, count: int, box: int, pixel_A: float, params: Classify2d) -> ParticleStack:
    """Write ``count`` particles into a folder and return them as the step sees them."""
    write_phantoms(folder, count, box=box, pixel_size_A=pixel_A, snr=0.02, views=200)
    return open_particle_stack(
        read_table(folder / "particles.star", "particles"),
        max_resolution_A=params.max_resolution_A,
        mask_diameter_A=params.mask_diameter_factor * DIAMETER_A,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=4000)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--box", type=int, default=120)
    parser.add_argument("--pixel", type=float, default=1.5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stages", type=int, default=0, help="time only so many iterations, spread over the schedule")
    options = parser.parse_args()
    params = Classify2d(particle_diameter_A=DIAMETER_A, offset_range_A=0.12 * DIAMETER_A, classes=options.classes)
    numba.set_num_threads(options.threads)
    with threadpool_limits(options.threads), tempfile.TemporaryDirectory() as folder:
        stack = phantoms(Path(folder), options.particles, options.box, options.pixel, params)
        context = Context("classify_2d", Path(folder), threads=options.threads, log=logging.getLogger("benchmark"))
        if options.stages == 0:
            start = time.perf_counter()
            classify(stack, params, context, fingerprint="benchmark")
            print(f"{time.perf_counter() - start:.1f} s for {options.particles} particles in {options.classes} classes")
            return
        mask = soft_circle(stack.store.box, 0.6 * DIAMETER_A / options.pixel)
        state = starting_state(stack, options.classes, params, context.rng("start"), mask)
        stages = make_schedule(params, DIAMETER_A, 0.12 * DIAMETER_A)
        times = {}
        for i in np.unique(np.linspace(0, len(stages) - 1, options.stages + 1).round().astype(int)):
            start, processor = time.perf_counter(), time.process_time()
            found = expectation(stack, state, stages[i], threads=options.threads)
            between = time.perf_counter()
            maximisation(stack, state, stages[i], found, params, mask=mask, threads=options.threads)
            times[int(i)], used = time.perf_counter() - start, time.process_time() - processor
            print(f"iteration {i + 1:3d} {stages[i].resolution_A:5.1f} Å {stages[i].n_psi:4d} angles: "
                  f"E {between - start:6.1f} s, all {times[int(i)]:6.1f} s, CPU {used:6.1f} s", flush=True)  # fmt: skip
        total = sum(np.interp(np.arange(len(stages)), list(times), list(times.values())))
        print(f"about {total:.0f} s for the whole schedule of {len(stages)} iterations")


if __name__ == "__main__":
    main()
