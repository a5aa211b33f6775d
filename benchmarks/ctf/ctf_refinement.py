"""Refining defoci, astigmatism and grey scales against not refining them, at several SNRs and planted spreads.

``python -m benchmarks.ctf.ctf_refinement [--parameter defocus] [--particles 300] [--symmetry O] [--snr 0.01 ...]``

Particles as in ``refinement.py``, 96 px of 1.8 Å, 20 a micrograph. What the table states of the parameter is wrong by a
normal deviate of the planted spread: of each particle for defocus (Å) and scale (relative), of each micrograph for both
components of the astigmatism (Å). Each cell is refined twice, from the true poses and the true map at 8 Å, by the
iterations of ``refine_homogeneous``, with and without the parameter; all else is the same. ``z`` is the rms of errors
over their stated standard errors, ``prior`` the width that was learned. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
from refinement import DIAMETER_A, Judge, blobs, particle

from benchmarks.shared.particle_sets import write_particles
from cryopipe.config.refinement import RefineHomogeneous
from cryopipe.context import Context
from cryopipe.imaging.filters import low_pass
from cryopipe.imaging.geometry import random_rotations
from cryopipe.imaging.optics import CtfParameters
from cryopipe.io.mrc import read_volume, write_volume
from cryopipe.iteration.gold_standard import final_halves, start_pair
from cryopipe.iteration.halves import Halves, load_halves
from cryopipe.iteration.pose_table import Poses
from cryopipe.iteration.residuals import measure_residuals
from cryopipe.poses.ctf import changed_parameters
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.references import ReferenceMap, reference_cube
from cryopipe.refinement.files import read_particles
from cryopipe.refinement.progress import Iteration, Progress
from cryopipe.refinement.refine_homogeneous import finished, iterate, start_radius
from cryopipe.simulation.particle_images import project
from cryopipe.simulation.potential import potential_map

BOX, PIXEL_A, START_A, A_MICROGRAPH = 96, 1.8, 8.0, 20
BEFORE, ITERATIONS = 3, 8
SPREADS = {"defocus": (0, 70, 200, 500), "astigmatism": (0, 50, 150, 450), "scale": (0, 0.05, 0.15, 0.3)}
#: smallest grey scale that is planted: a particle cannot be fainter than nothing
LEAST_SCALE = 0.2


@dataclass(frozen=True)
class Scene:
    """Particles without CTF and noise, [n, y, x], their poses, and the CTFs that the table states."""

    folder: Path
    clean: np.ndarray
    rotations: np.ndarray
    shifts_px: np.ndarray
    stated: CtfParameters
    symmetry: str

    @classmethod
    def make(cls, folder: Path, *, count: int, symmetry: str) -> Scene:
        """Project the particle and write the truth and the start."""
        rng = np.random.default_rng(0)
        atoms = particle(symmetry)
        model = blobs(atoms)
        rotations, shifts = random_rotations(rng, count), rng.normal(0, 1.5, (count, 2))
        clean = project(model, rotations, box=BOX, pixel_size_A=PIXEL_A, shifts_px=shifts)
        clean -= clean.mean(axis=(1, 2), keepdims=True)
        defocus = np.repeat(rng.uniform(8000, 18000, -(-count // A_MICROGRAPH)), A_MICROGRAPH)[:count]
        truth = potential_map(atoms, box=BOX, pixel_size_A=PIXEL_A)
        write_volume(folder / "truth.mrc", truth, PIXEL_A)
        np.savez(folder / "truth.npz", rotations=rotations, shifts=shifts, height=np.zeros(count))
        stated = CtfParameters(defocus, defocus - 200, np.full(count, 30.0))
        return cls(folder, clean, rotations, shifts, stated, symmetry)

    def plant(self, parameter: str, spread: float, snr: float, seed: int) -> np.ndarray:
        """Write particles whose parameter is off by ``spread`` and return the true deviations, [n] or [n, 2]."""
        rng, count = np.random.default_rng(seed), len(self.clean)
        true, clean = self.stated, self.clean
        if parameter == "astigmatism":
            deviation = np.repeat(rng.normal(0, spread, (-(-count // A_MICROGRAPH), 2)), A_MICROGRAPH, axis=0)[:count]
            true = changed_parameters(true, np.column_stack([np.zeros(count), deviation]))
        else:
            deviation = rng.normal(0, spread, count)
            if parameter == "defocus":
                true = true.with_defocus_offset(deviation)
            else:
                deviation = np.maximum(deviation, LEAST_SCALE - 1)
                clean = clean * (1 + deviation[:, None, None]).astype(np.float32)
        write_particles(
            self.folder, lambda part: clean[part], self.stated, true, pixel_size_A=PIXEL_A, snr=snr, rng=rng,
            a_micrograph=A_MICROGRAPH,
        )  # fmt: skip
        return deviation

    def refine(self, *, threads: int, **options: Any) -> tuple[float, Found, float]:
        """Return FSC 0.5 against the truth, what was found of the particles, and CPU seconds."""
        params = RefineHomogeneous(
            symmetry=self.symmetry, particle_diameter_A=DIAMETER_A, initial_lowpass_A=START_A, offset_range_A=0.0,
            mask_start_resolution_A=12.0, global_iterations=BEFORE, max_iterations=BEFORE + ITERATIONS, **options,
        )  # fmt: skip
        context = Context("refine_homogeneous", self.folder, threads=threads, log=logging.getLogger("benchmark"))
        cpu = time.process_time()
        table = read_particles(self.folder / "particles.star")
        index = np.array([int(str(name).split("@")[0]) - 1 for name in table.rows["rlnImageName"]])
        halves = load_halves(table, threads=threads)
        progress = self.known_poses(halves, index, params)
        while not finished(progress, params):
            progress = iterate(progress, halves, params, context)
        maps = final_halves(progress.pair, halves, symmetry=self.symmetry, threads=threads)
        cpu = time.process_time() - cpu
        states = progress.pair.states
        order = np.argsort(index)
        found = Found(
            halves.gather([state.ctf_change_A for state in states])[order],
            halves.gather([state.defocus_error_A for state in states])[order],
            halves.gather([state.scale for state in states])[order],
            progress.history[-1],
        )
        return Judge(self.folder, self.symmetry).map(0.5 * (maps[0] + maps[1])), found, cpu

    def known_poses(self, halves: Halves, index: np.ndarray, params: RefineHomogeneous) -> Progress:
        """Return a refinement that starts from the true poses and the true map at ``START_A``."""
        store, radius = halves.store, start_radius(halves, params)
        initial = low_pass(read_volume(self.folder / "truth.mrc")[0], PIXEL_A, START_A)
        images = store.block(slice(0, 100), radius)
        chosen = index[halves.first.rows[:100]]
        reference = ReferenceMap(reference_cube(initial, radius))
        noise = NoiseModel(np.full(radius + 1, 0.5))
        grey = measure_residuals(images, noise, reference, self.rotations[chosen], self.shifts_px[chosen]).grey
        initial *= np.float32(grey)
        pair = start_pair(halves, initial, radius=radius, lowpass_A=START_A, diameter_A=DIAMETER_A)
        states = []
        for half, state in zip(halves, pair.states, strict=True):
            own = index[half.rows]
            one = np.ones(len(own))
            poses = Poses(self.rotations[own].copy(), self.shifts_px[own].copy(), one, one)
            states.append(replace(state, poses=poses))
        # poses are known: neither global iterations before nor a second opinion on them
        return Progress(BEFORE, radius, replace(pair, states=tuple(states)), [], settled=False, reviewed=BEFORE)


@dataclass(frozen=True)
class Found:
    """What a refinement found of n particles, in the order of the stack, and the last row of its history."""

    ctf_change_A: np.ndarray
    defocus_error_A: np.ndarray
    scale: np.ndarray
    last: Iteration

    def deviation(self, parameter: str) -> np.ndarray:
        """Return the estimates of a parameter, [n] or [n, 2]."""
        if parameter == "scale":
            return self.scale / self.scale.mean() - 1
        return self.ctf_change_A[:, 0] if parameter == "defocus" else self.ctf_change_A[:, 1:]


def cell(scene: Scene, parameter: str, spread: float, snr: float, *, seed: int, threads: int) -> dict[str, float]:
    """Refine with and without the parameter and return errors and resolutions."""
    truth = scene.plant(parameter, spread, snr, seed)
    switches = {f"refine_{name}": False for name in SPREADS}
    if parameter == "astigmatism":
        switches["refine_defocus"] = True
    without, _, cpu = scene.refine(threads=threads, **switches)
    with_it, found, cpu_refined = scene.refine(threads=threads, **(switches | {f"refine_{parameter}": True}))
    error = found.deviation(parameter) - (truth if parameter != "scale" else (1 + truth) / (1 + truth).mean() - 1)
    row = {"snr": snr, "spread": spread, "unrefined": rms(truth), "refined": rms(error)}
    if parameter == "defocus":
        row["z"] = rms(error / found.defocus_error_A)
        row["micrographs"] = found.last.micrograph_defocus_prior_A
    row["prior"] = getattr(found.last, f"{parameter}_prior" + ("" if parameter == "scale" else "_A"))
    return row | {"without_A": without, "with_A": with_it, "cpu": cpu, "cpu_refined": cpu_refined}


def rms(values: np.ndarray) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameter", choices=list(SPREADS), default="defocus")
    parser.add_argument("--particles", type=int, default=300)
    parser.add_argument("--symmetry", choices=["O", "C1"], default="O")
    parser.add_argument("--snr", type=float, nargs="+", default=[0.01, 0.02, 0.04, 0.08])
    parser.add_argument("--spread", type=float, nargs="+")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    numba.set_num_threads(arguments.threads)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        scene = Scene.make(Path(name), count=arguments.particles, symmetry=arguments.symmetry)
        for snr in arguments.snr:
            for spread in arguments.spread or SPREADS[arguments.parameter]:
                seeds = {"seed": arguments.seed, "threads": arguments.threads}
                rows.append(cell(scene, arguments.parameter, spread, snr, **seeds))
                if len(rows) == 1:
                    print("| " + " | ".join(rows[0]) + " |\n" + "|---" * len(rows[0]) + "|")
                print("| " + " | ".join(f"{value:.4g}" for value in rows[-1].values()) + " |", flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
