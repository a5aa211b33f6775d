"""Time and accuracy of the gold-standard refinement on simulated apoferritin, compared with RELION on the same particles.

``python -m benchmarks.particles.refinement [--particles 400] [--box 240] [--pixel 1.0] [--snr 0.02] [--start 15] [--symmetry O]
[--ice 0] [--folder DIR] [--peer relion] [--device gpu]``

The particles are projections of the embedded atoms (PDB 6Z6U) with CTF, white noise and heights of 300 Å about the
defocus in the table. With ``--symmetry C1`` only seven of its 24 chains are used, which have no symmetry. The tutorial's
size is ``--particles 3400 --box 250 --pixel 0.7425 --snr 0.015`` (the demonstration's particles have 0.022 at
40 e/px in a box of 200 Å; the tutorial preset gives 27.6 e/px in one of 186 Å). The start is the true map at 15 Å with
a wrong grey scale. Limits are printed beside the result: the map from true poses and true defoci, and the poses from a
local refinement that starts at the true poses, against the true map and against a map of half of the particles. The peer
is ``relion_refine_mpi --auto_refine`` with three processes and two half sets. With ``--folder`` particles are kept and used
again. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import shutil
import subprocess
import tempfile
import time
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import numba
import numpy as np

from benchmarks.shared.particle_sets import write_particles
from cryopipe.config.refinement import RefineHomogeneous
from cryopipe.context import Context
from cryopipe.imaging.filters import low_pass
from cryopipe.imaging.fsc import fourier_shell_correlation, resolution_at
from cryopipe.imaging.geometry import angular_distance_deg, euler_to_matrix, random_rotations
from cryopipe.imaging.masks import solvent_mask
from cryopipe.imaging.optics import CtfParameters, from_table
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.io.mrc import read_volume, write_volume
from cryopipe.io.star import read_table
from cryopipe.iteration.exchange import compare, masked_reference, next_reference
from cryopipe.iteration.residuals import measure_residuals
from cryopipe.kernels.devices import visible_devices
from cryopipe.poses.ctf import with_defocus_change
from cryopipe.poses.refine_poses import refine_poses
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import load_particle_spectra
from cryopipe.projection.references import ReferenceMap, reference_cube
from cryopipe.reconstruction.reconstruct import Reconstruction
from cryopipe.refinement import refine_homogeneous
from cryopipe.refinement.options import mask_options
from cryopipe.simulation.atoms import AtomicModel, apoferritin
from cryopipe.simulation.particle_images import BlobModel, project
from cryopipe.simulation.potential import potential_map

DIAMETER_A = 130.0
HEIGHT_SD_A = 300.0
#: B factor in addition to that of the atoms, for motion and radiation damage
EXTRA_B_A2 = 40.0


#: chains of the 24-mer that make a particle without symmetry
ASYMMETRIC_CHAINS = (0, 1, 2, 5, 9, 14, 20)


def particle(symmetry: str) -> AtomicModel:
    """Return the 24-mer, or seven of its chains."""
    atoms = apoferritin()
    if symmetry != "C1":
        return atoms
    chain = np.repeat(np.arange(24), len(atoms.positions_A) // 24)
    keep = np.isin(chain, ASYMMETRIC_CHAINS)
    return AtomicModel(**{field.name: getattr(atoms, field.name)[keep] for field in fields(atoms)})


def blobs(atoms: AtomicModel) -> BlobModel:
    """Return atoms as blobs, each as wide as its B factor and ``EXTRA_B_A2`` make it."""
    electrons = {"C": 6.0, "N": 7.0, "O": 8.0, "S": 16.0}
    weights = np.array([electrons.get(str(e), 8.0) for e in atoms.elements]) * atoms.occupancies
    return BlobModel(atoms.positions_A, weights, np.sqrt((atoms.b_factors_A2 + EXTRA_B_A2) / (8 * np.pi**2)))


def simulate(
    folder: Path,
    *,
    count: int,
    box: int,
    pixel_size_A: float,
    snr: float,
    symmetry: str,
    start_A: float,
    ice: float = 0.0,
) -> None:
    """Write particles.mrcs, particles.star, truth.mrc, start.mrc and truth.npz."""
    rng = np.random.default_rng(0)
    atoms = particle(symmetry)
    model = blobs(atoms)
    rotations, shifts = random_rotations(rng, count), rng.normal(0, 1.5, (count, 2))
    stated = np.repeat(rng.uniform(8000, 18000, -(-count // 30)), 30)[:count]
    parameters = CtfParameters(stated, stated - 200, np.full(count, 30.0))
    height = rng.normal(0, HEIGHT_SD_A, count)
    contrast = np.repeat(np.exp(rng.uniform(-ice, ice, -(-count // 30))), 30)[:count]

    def projections(part: slice) -> np.ndarray:
        views = project(model, rotations[part], box=box, pixel_size_A=pixel_size_A, shifts_px=shifts[part])
        return (views - views.mean(axis=(1, 2), keepdims=True)) * contrast[part, None, None].astype(np.float32)

    true = parameters.with_defocus_offset(height)
    write_particles(folder, projections, parameters, true, pixel_size_A=pixel_size_A, snr=snr, rng=rng)
    truth = potential_map(atoms, box=box, pixel_size_A=pixel_size_A, threads=2)
    write_volume(folder / "truth.mrc", truth, pixel_size_A)
    write_volume(folder / "start.mrc", low_pass(truth, pixel_size_A, start_A), pixel_size_A)
    np.savez(folder / "truth.npz", rotations=rotations, shifts=shifts, height=height)


class Judge:
    """Compares maps and poses with the truth in ``folder``."""

    def __init__(self, folder: Path, symmetry: str) -> None:
        self.truth, pixel_size_A = read_volume(folder / "truth.mrc")
        self.pixel_size_A = float(pixel_size_A or 1.0)
        with np.load(folder / "truth.npz") as known:
            self.rotations, self.shifts, self.height = known["rotations"], known["shifts"], known["height"]
        self.operators = symmetry_operators(symmetry)
        self.mask = solvent_mask(
            self.truth, self.pixel_size_A, low_pass_A=12.0, threshold=0.1, extend_A=4.0, edge_A=8.0
        )

    def map(self, volume: np.ndarray) -> float:
        """Return the resolution (Å) at which the FSC with the truth falls below 0.5."""
        curve = fourier_shell_correlation(volume * self.mask, self.truth * self.mask)
        return float(resolution_at(curve, 0.5, len(self.truth), self.pixel_size_A))

    def poses(self, rotations: np.ndarray, shifts_px: np.ndarray, index: Any = slice(None)) -> dict[str, float]:
        """Return medians and 90th percentiles of angle and shift errors, and how many angles are off by more than 5°.

        ``shifts_px`` is what centres an image.
        """
        angle = angular_distance_deg(rotations, self.rotations[index], self.operators)
        shift = np.linalg.norm(shifts_px - self.shifts[index], axis=1) * self.pixel_size_A
        return {
            "angle_deg": float(np.median(angle)),
            "angle90_deg": float(np.percentile(angle, 90)),
            "off5_percent": float(100 * (angle > 5).mean()),
            "shift_A": float(np.median(shift)),
            "shift90_A": float(np.percentile(shift, 90)),
        }

    def table(self, path: Path) -> dict[str, float]:
        """Return the pose errors of a particle table."""
        rows = read_table(path, "particles").rows
        index = np.array([int(str(n).split("@")[0]) - 1 for n in rows["rlnImageName"]])
        found = euler_to_matrix(rows["rlnAngleRot"], rows["rlnAngleTilt"], rows["rlnAnglePsi"])
        shifts = rows[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(np.float64) / self.pixel_size_A
        return self.poses(found, shifts, index)


def limits(folder: Path, judge: Judge, symmetry: str, threads: int) -> dict[str, dict[str, float]]:
    """Return the limits: maps from true poses (with true and with stated defoci), and the best possible poses."""
    table = read_table(folder / "particles.star", "particles")
    box = len(judge.truth)
    stated = load_particle_spectra(table, radius=box // 2 - 1, threads=threads)
    sigma2 = np.full(stated.pixels.radius + 1, 0.5)
    found = {}
    true = with_defocus_change(stated, from_table(table.with_optics()), judge.height)
    for name, images in (("true poses, stated defoci", stated), ("true poses, true defoci", true)):
        sums = Reconstruction.empty(box, images.pixels.radius, symmetry=symmetry, expected_slices=len(images))
        sums.insert(images, judge.rotations, judge.shifts, 1 / sigma2)
        found[name] = {"fsc05_A": judge.map(sums.solve(threads=threads))}
    cube = reference_cube(judge.truth, stated.pixels.radius, threads=threads)
    grey = grey_of(true, cube, judge)
    best = refine_poses(true, NoiseModel(sigma2), ReferenceMap(cube * np.float32(grey)), judge.rotations, judge.shifts)
    found["local refinement against the true map"] = judge.poses(best.rotations, best.shifts_px)
    found["... against the other half's map of true poses"] = against_other_half(true, judge, symmetry, threads)
    return found


def against_other_half(images: Any, judge: Judge, symmetry: str, threads: int) -> dict[str, float]:
    """Return the errors of poses that are refined from the true ones against the best possible map of half of the particles.

    This is the limit of a gold-standard refinement, because its references have the noise of half of the particles. Each
    particle is compared with the map of the other half, filtered and masked as in the refinement.
    """
    box, radius = len(judge.truth), images.pixels.radius
    sigma2 = np.full(radius + 1, 0.5)
    rows = [np.arange(half, len(images), 2) for half in (0, 1)]
    sums = []
    for mine in rows:
        half = Reconstruction.empty(box, radius, symmetry=symmetry, expected_slices=len(mine))
        half.insert(images.subset(mine), judge.rotations[mine], judge.shifts[mine], 1 / sigma2)
        sums.append(half)
    maps = [half.solve(threads=threads) for half in sums]
    mask: dict[str, Any] = {
        "pixel_size_A": judge.pixel_size_A,
        "mask_options": mask_options(RefineHomogeneous(particle_diameter_A=DIAMETER_A, mask_start_resolution_A=12.0)),
        "threads": threads,
    }
    rng = np.random.default_rng(0)
    shared = compare((maps[0], maps[1]), radius=radius, join_radius=1, diameter_A=DIAMETER_A, rng=rng, **mask)
    rotations, shifts = judge.rotations.copy(), judge.shifts.copy()
    used = images.crop(int(shared.shell))
    for mine, half, volume in zip(rows, sums[::-1], maps[::-1], strict=True):
        reference = next_reference(volume, half, shared, threads=threads)
        reference = masked_reference(reference, diameter_A=DIAMETER_A, **mask)
        cube = reference_cube(reference, used.pixels.radius, threads=threads)
        refined = refine_poses(used.subset(mine), NoiseModel(sigma2), ReferenceMap(cube), rotations[mine], shifts[mine])
        rotations[mine], shifts[mine] = refined.rotations, refined.shifts_px
    return judge.poses(rotations, shifts)


def grey_of(images: Any, cube: np.ndarray, judge: Judge) -> float:
    """Return the least-squares scale of the true map to the images at the true poses."""
    some = images.subset(slice(0, 200))
    measured = measure_residuals(
        some,
        NoiseModel(np.full(images.pixels.radius + 1, 0.5)),
        ReferenceMap(cube),
        judge.rotations[:200],
        judge.shifts[:200],
    )
    return measured.grey


def own(
    folder: Path, judge: Judge, symmetry: str, start_A: float, threads: int, gpus: tuple[int, ...] = ()
) -> dict[str, float]:
    """Run refine_homogeneous and judge it."""
    names = ("half1.mrc", "half2.mrc", "map.mrc", "mask.mrc", "particles.star", "fsc.star", "history.tsv")
    outputs = {name.split(".")[0]: folder / f"own_{name}" for name in names}
    shutil.rmtree(folder / "work", ignore_errors=True)
    context = Context(
        "refine_homogeneous",
        folder / "work",
        threads=threads,
        device="gpu" if gpus else "cpu",
        gpus=gpus,
        log=logging.getLogger("benchmark"),
    )
    params = RefineHomogeneous(
        symmetry=symmetry,
        particle_diameter_A=DIAMETER_A,
        initial_lowpass_A=start_A,
        offset_range_A=0.096 * DIAMETER_A,
        mask_start_resolution_A=12.0,
    )
    start, cpu = time.perf_counter(), time.process_time()
    inputs = {"particles": folder / "particles.star", "map": folder / "start.mrc"}
    refine_homogeneous.main(inputs, outputs, params, context)
    seconds = time.perf_counter() - start
    cpu = time.process_time() - cpu
    print(outputs["history"].read_text())
    volume = 0.5 * (read_volume(outputs["half1"])[0] + read_volume(outputs["half2"])[0])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    errors = judge.table(outputs["particles"])
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_GB": memory, "fsc05_A": judge.map(volume), **errors}


def relion(folder: Path, judge: Judge, symmetry: str, start_A: float, threads: int) -> dict[str, float]:
    """Run RELION's auto-refine on the same particles and judge it."""
    if shutil.which("relion_refine_mpi") is None:
        raise SystemExit("relion_refine_mpi is not on the PATH. Install RELION, or leave --peer out.")
    shutil.rmtree(folder / "relion", ignore_errors=True)
    (folder / "relion").mkdir()
    command = (
        "mpirun --allow-run-as-root --oversubscribe -n 3 relion_refine_mpi --i particles.star --ref start.mrc"
        f" --o relion/run --auto_refine --split_random_halves --sym {symmetry} --ini_high {start_A:g}"
        f" --particle_diameter {DIAMETER_A * 1.25:.0f} --ctf --flatten_solvent --zero_mask --firstiter_cc --norm --scale"
        f" --low_resol_join_halves {max(start_A, 20):g} --healpix_order {2 if symmetry == 'C1' else 3}"
        " --offset_range 5 --offset_step 2 --oversampling 1 --pad 2"
        f" --dont_combine_weights_via_disc --preread_images --pool 30 --j {max(1, threads // 2)}"
    )
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with (folder / "relion.log").open("w") as log:
        subprocess.run(command.split(), check=True, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    halves = [read_volume(folder / f"relion/run_half{half}_class001_unfil.mrc")[0] for half in (1, 2)]
    errors = judge.table(folder / "relion/run_data.star")
    return {"seconds": seconds, "cpu_seconds": cpu, "fsc05_A": judge.map(0.5 * (halves[0] + halves[1])), **errors}


def report(rows: dict[str, dict[str, float]]) -> None:
    """Print the table and the line of JSON."""
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    print("| | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[key]:.4g}" if key in row else "" for key in columns) + " |")
    print(json.dumps(rows))


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=400)
    parser.add_argument("--box", type=int, default=240)
    parser.add_argument("--pixel", type=float, default=1.0, help="Å")
    parser.add_argument("--snr", type=float, default=0.02)
    parser.add_argument("--symmetry", choices=["O", "C1"], default="O")
    parser.add_argument("--start", type=float, default=15.0, help="resolution of the initial map in Å")
    parser.add_argument(
        "--ice", type=float, default=0.0, help="natural logarithm of the range of the micrographs' contrast"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep the particles here, and use those that are there")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu", help="gpu: on all that are visible")
    parser.add_argument("--peer", choices=["relion"])
    parser.add_argument("--skip-own", action="store_true", help="only the limits and the peer")
    arguments = parser.parse_args()
    numba.set_num_threads(arguments.threads)
    gpus = tuple(visible_devices()) if arguments.device == "gpu" else ()
    if arguments.device == "gpu" and not gpus:
        raise SystemExit("no CUDA device is visible. Install CuPy and make one visible, or leave --device out.")
    with tempfile.TemporaryDirectory() if arguments.folder is None else nullcontext(arguments.folder) as name:
        folder = Path(name).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "truth.npz").exists():
            size = {"count": arguments.particles, "box": arguments.box, "pixel_size_A": arguments.pixel}
            how = {"symmetry": arguments.symmetry, "start_A": arguments.start, "ice": arguments.ice}
            simulate(folder, **size, snr=arguments.snr, **how)
        judge = Judge(folder, arguments.symmetry)
        rows = {}
        if not arguments.skip_own:
            # first: the peak memory is the process's
            rows["cryopipe"] = own(folder, judge, arguments.symmetry, arguments.start, arguments.threads, gpus)
        rows |= limits(folder, judge, arguments.symmetry, arguments.threads)
        if arguments.peer == "relion":
            rows["relion 3.1.3"] = relion(folder, judge, arguments.symmetry, arguments.start, arguments.threads)
            if "cryopipe" in rows:
                ratio = rows["relion 3.1.3"]["seconds"] / rows["cryopipe"]["seconds"]
                rows["ratio of times"] = {"seconds": ratio}
        report(rows)


if __name__ == "__main__":
    main()
