"""Time 2-D classification at the size of the tutorial: 4,000 particles of 120 px in 50 classes on two cores.

    python benchmarks/classify_2d.py --stages 2     # times some iterations and adds up the schedule
    python benchmarks/classify_2d.py                # runs all of it

Particles are phantoms (hollow octahedral shells, 9 % with a dense core, CTF, white noise).
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

from cryopipe.classes2d.classify_2d import classify
from cryopipe.classes2d.maximisation import expectation, maximisation, starting_state
from cryopipe.classes2d.particle_stack import ParticleStack
from cryopipe.classes2d.schedule import make_schedule
from cryopipe.config.classes2d import Classify2d
from cryopipe.context import Context
from cryopipe.imaging.geometry import random_rotations
from cryopipe.imaging.masks import soft_circle
from cryopipe.imaging.optics import CtfParameters
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.projection.particle_spectra import spectra_of_images
from cryopipe.simulation.particle_images import image_particles, project, random_shell

DIAMETER_A = 125.0


def phantoms(count: int, box: int, pixel_A: float, max_resolution_A: float) -> ParticleStack:
    """Return ``count`` particles; a few hundred views are shared, so that making them takes no time."""
    rng = np.random.default_rng(0)
    model = random_shell(rng, blobs=40, outer_radius_A=60, inner_radius_A=40, sigma_A=(2.5, 5.0)).copies(
        symmetry_operators("O")
    )
    views = project(model, random_rotations(rng, 200), box=box, pixel_size_A=pixel_A)
    defocus = rng.uniform(8000, 20000, count)
    flat = np.zeros(count)
    optics = CtfParameters(defocus, defocus, flat, flat + 300, flat + 2.7, flat + 0.1)
    images = image_particles(views[rng.integers(0, 200, count)], optics, pixel_size_A=pixel_A, snr=0.02, rng=rng)
    images *= soft_circle(box, 0.6 * DIAMETER_A / pixel_A)
    radius = int(box * pixel_A / max_resolution_A)
    return ParticleStack(
        spectra_of_images(images, optics, pixel_size_A=pixel_A, radius=radius), np.zeros((count, 2)), box
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
    stack = phantoms(options.particles, options.box, options.pixel, params.max_resolution_A)
    numba.set_num_threads(options.threads)
    with threadpool_limits(options.threads), tempfile.TemporaryDirectory() as folder:
        context = Context("classify_2d", Path(folder), threads=options.threads, log=logging.getLogger("benchmark"))
        if options.stages == 0:
            start = time.perf_counter()
            classify(stack, params, context, fingerprint="benchmark")
            print(f"{time.perf_counter() - start:.1f} s for {options.particles} particles in {options.classes} classes")
            return
        spectra, prior = stack.spectra, stack.prior_shift_px
        mask = soft_circle(options.box, 0.6 * DIAMETER_A / options.pixel)
        state = starting_state(spectra, prior, options.classes, params, context.rng("start"), mask)
        stages = make_schedule(params, DIAMETER_A, 0.12 * DIAMETER_A)
        times = {}
        for i in np.unique(np.linspace(0, len(stages) - 1, options.stages + 1).round().astype(int)):
            start, processor = time.perf_counter(), time.process_time()
            found = expectation(spectra, prior, state, stages[i], threads=options.threads)
            between = time.perf_counter()
            maximisation(spectra, prior, state, stages[i], found, params, mask=mask, threads=options.threads)
            times[int(i)], used = time.perf_counter() - start, time.process_time() - processor
            print(f"iteration {i + 1:3d} {stages[i].resolution_A:5.1f} Å {stages[i].n_psi:4d} angles: "
                  f"E {between - start:6.1f} s, all {times[int(i)]:6.1f} s, CPU {used:6.1f} s", flush=True)  # fmt: skip
        total = sum(np.interp(np.arange(len(stages)), list(times), list(times.values())))
        print(f"about {total:.0f} s for the whole schedule of {len(stages)} iterations")


if __name__ == "__main__":
    main()
