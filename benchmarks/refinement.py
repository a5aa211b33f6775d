"""Time and accuracy of the gold-standard refinement on simulated apoferritin, beside RELION's on the same particles.

``python benchmarks/refinement.py [--particles 400] [--box 240] [--pixel 1.0] [--snr 0.02] [--peer relion]``

The particles are projections of the embedded atoms (PDB 6Z6U) with CTF, white noise and heights of 300 Å about the
defocus that the table states. The tutorial's size is ``--particles 3400 --box 250 --pixel 0.7425``. The start is the
true map at 20 Å, on a wrong grey scale. The peer is ``relion_refine_mpi --auto_refine`` with three processes and two
half sets.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numba
import numpy as np
import pandas as pd

from cryopipe.config.refinement import RefineHomogeneous
from cryopipe.context import Context
from cryopipe.imaging.filters import low_pass
from cryopipe.imaging.fsc import fourier_shell_correlation, resolution_at
from cryopipe.imaging.geometry import angular_distance_deg, euler_to_matrix, random_rotations
from cryopipe.imaging.masks import solvent_mask
from cryopipe.imaging.optics import CtfParameters
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.io.mrc import format_image_name, read_volume, write_stack, write_volume
from cryopipe.io.star import StarTable, make_optics, read_table, write_table
from cryopipe.reconstruction.reconstruct import Reconstruction
from cryopipe.refinement import refine_homogeneous
from cryopipe.search.spectra import load_particle_spectra
from cryopipe.simulation.atoms import apoferritin
from cryopipe.simulation.particle_images import BlobModel, image_particles, project
from cryopipe.simulation.potential import potential_map

DIAMETER_A = 130.0
HEIGHT_SD_A = 300.0
#: beyond the atoms' own: motion and radiation damage
EXTRA_B_A2 = 40.0


def simulate(folder: Path, *, count: int, box: int, pixel_size_A: float, snr: float) -> tuple[np.ndarray, np.ndarray]:
    """Write particles.mrcs, particles.star and truth.mrc; return the true rotations and shifts in px."""
    rng = np.random.default_rng(0)
    atoms = apoferritin()
    electrons = {"C": 6.0, "N": 7.0, "O": 8.0, "S": 16.0}
    weights = np.array([electrons.get(str(e), 8.0) for e in atoms.elements]) * atoms.occupancies
    model = BlobModel(atoms.positions_A, weights, np.sqrt((atoms.b_factors_A2 + EXTRA_B_A2) / (8 * np.pi**2)))
    rotations, shifts = random_rotations(rng, count), rng.normal(0, 1.5, (count, 2))
    stated = np.repeat(rng.uniform(8000, 18000, -(-count // 30)), 30)[:count]
    parameters = CtfParameters(stated, stated - 200, np.full(count, 30.0))
    projections = project(model, rotations, box=box, pixel_size_A=pixel_size_A, shifts_px=shifts)
    projections -= projections.mean(axis=(1, 2), keepdims=True)
    true = parameters.with_defocus_offset(rng.normal(0, HEIGHT_SD_A, count))
    images = image_particles(projections, true, pixel_size_A=pixel_size_A, snr=snr, rng=rng)
    write_stack(folder / "particles.mrcs", images, pixel_size_A)
    rows = pd.DataFrame(
        {
            "rlnImageName": [format_image_name(i, folder / "particles.mrcs") for i in range(count)],
            "rlnMicrographName": [f"mic_{i // 30:04d}.mrc" for i in range(count)],
            "rlnCoordinateX": rng.uniform(0, 4000, count),
            "rlnCoordinateY": rng.uniform(0, 4000, count),
            "rlnDefocusU": parameters.defocus_u_A,
            "rlnDefocusV": parameters.defocus_v_A,
            "rlnDefocusAngle": parameters.defocus_angle_deg,
            "rlnOpticsGroup": 1,
        }
    )
    optics = make_optics(
        voltage_kV=300,
        cs_mm=2.7,
        amplitude_contrast=0.1,
        movie_pixel_size_A=pixel_size_A,
        image_pixel_size_A=pixel_size_A,
        image_size=box,
    )
    write_table(folder / "particles.star", StarTable("particles", optics, rows))
    truth = potential_map(atoms, box=box, pixel_size_A=pixel_size_A, workers=2)
    write_volume(folder / "truth.mrc", truth, pixel_size_A)
    write_volume(folder / "start.mrc", low_pass(truth, pixel_size_A, 20.0), pixel_size_A)
    return rotations, shifts


def judge(name: str, volume: np.ndarray, truth: np.ndarray, pixel_size_A: float, seconds: float) -> None:
    mask = solvent_mask(truth, pixel_size_A, low_pass_A=12.0, threshold=0.1, extend_A=4.0, edge_A=8.0)
    curve = fourier_shell_correlation(volume * mask, truth * mask)
    resolution = resolution_at(curve, 0.5, len(truth), pixel_size_A)
    print(f"{name}: {seconds:.0f} s, FSC 0.5 with the truth at {resolution:.2f} Å")


def pose_errors(name: str, path: Path, rotations: np.ndarray) -> None:
    rows = read_table(path, "particles").rows
    index = [int(str(n).split("@")[0]) - 1 for n in rows["rlnImageName"]]
    found = euler_to_matrix(rows["rlnAngleRot"], rows["rlnAngleTilt"], rows["rlnAnglePsi"])
    error = angular_distance_deg(found, rotations[index], symmetry_operators("O"))
    print(f"{name}: pose error median {np.median(error):.2f}°, 90th percentile {np.percentile(error, 90):.2f}°")


def own(folder: Path, threads: int) -> tuple[np.ndarray, float]:
    names = ("half1.mrc", "half2.mrc", "map.mrc", "mask.mrc", "particles.star", "fsc.star", "history.tsv")
    outputs = {name.split(".")[0]: folder / f"own_{name}" for name in names}
    context = Context("refine_homogeneous", folder, threads=threads, log=logging.getLogger("benchmark"))
    params = RefineHomogeneous(symmetry="O", particle_diameter_A=DIAMETER_A, initial_lowpass_A=DIAMETER_A / 6)
    start = time.perf_counter()
    inputs = {"particles": folder / "particles.star", "map": folder / "start.mrc"}
    refine_homogeneous.main(inputs, outputs, params, context)
    seconds = time.perf_counter() - start
    print(outputs["history"].read_text())
    return 0.5 * (read_volume(outputs["half1"])[0] + read_volume(outputs["half2"])[0]), seconds


def relion(folder: Path, threads: int) -> tuple[np.ndarray, float]:
    if shutil.which("relion_refine_mpi") is None:
        raise SystemExit("relion_refine_mpi is not on the PATH: install RELION or leave --peer out")
    (folder / "relion").mkdir()
    command = (
        "mpirun --allow-run-as-root --oversubscribe -n 3 relion_refine_mpi --i particles.star --ref start.mrc"
        " --o relion/run --auto_refine --split_random_halves --sym O --ini_high 20"
        f" --particle_diameter {DIAMETER_A * 1.25:.0f} --ctf --flatten_solvent --zero_mask --firstiter_cc --norm --scale"
        " --low_resol_join_halves 20 --healpix_order 2 --offset_range 5 --offset_step 2 --oversampling 1 --pad 2"
        f" --dont_combine_weights_via_disc --preread_images --pool 30 --j {max(1, threads // 2)}"
    )
    start = time.perf_counter()
    with (folder / "relion.log").open("w") as log:
        subprocess.run(command.split(), check=True, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    seconds = time.perf_counter() - start
    halves = [read_volume(folder / f"relion/run_half{half}_class001_unfil.mrc")[0] for half in (1, 2)]
    return 0.5 * (halves[0] + halves[1]), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=400)
    parser.add_argument("--box", type=int, default=240)
    parser.add_argument("--pixel", type=float, default=1.0, help="Å")
    parser.add_argument("--snr", type=float, default=0.02)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer", choices=["relion"])
    arguments = parser.parse_args()
    numba.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = {"count": arguments.particles, "box": arguments.box, "pixel_size_A": arguments.pixel}
        rotations, shifts = simulate(folder, **size, snr=arguments.snr)
        truth, _ = read_volume(folder / "truth.mrc")
        start = time.perf_counter()
        images = load_particle_spectra(
            read_table(folder / "particles.star", "particles"), radius=arguments.box // 2 - 1
        )
        sums = Reconstruction.empty(arguments.box, images.pixels.radius, symmetry="O", expected_slices=len(images))
        sums.insert(images, rotations, shifts, np.full(images.pixels.radius + 1, 2.0))
        judge(
            "true poses, defoci as stated",
            sums.solve(threads=arguments.threads),
            truth,
            arguments.pixel,
            time.perf_counter() - start,
        )
        del images, sums
        volume, seconds = own(folder, arguments.threads)
        judge("cryopipe", volume, truth, arguments.pixel, seconds)
        pose_errors("cryopipe", folder / "own_particles.star", rotations)
        if arguments.peer == "relion":
            volume, seconds = relion(folder, arguments.threads)
            judge("relion", volume, truth, arguments.pixel, seconds)
            pose_errors("relion", folder / "relion/run_data.star", rotations)


if __name__ == "__main__":
    main()
