"""Movies that drift, and the time of small ones, by the project's simulator: truth is known at every place.

``python -m benchmarks.movies.drifts [--drifts 0 15 40 60 100] [--specimen apoferritin] [--repeat 1]`` aligns movies of 1280 x
1280 x 16 at 1.2 Å/px for each drift, at normal and low exposure, in thick and thin ice, and prints the error of the tracks,
the evidence and the verdict of the screening. ``--specimen monomer`` and ``rod`` take one chain of the embedded structure,
and a row of six.

``python -m benchmarks.movies.drifts --time 12 [--peer relion]`` writes so many movies as LZW TIFF and runs the step on them in
a process of its own, start and files included, and RELION's own program with 5 x 5 patches, both on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks.shared.measured import Stopwatch
from cryopipe.config.movies import AlignMovies, ScreenMotion
from cryopipe.config.simulation import SimulateMovies
from cryopipe.io.movies import open_movie, write_movie
from cryopipe.io.mrc import write_image
from cryopipe.io.star import StarTable, make_optics, write_table
from cryopipe.movies.align_movies import Camera, align_movie
from cryopipe.movies.gain.defects import plan_repair, write_defects
from cryopipe.movies.motion.measures import measure_motion
from cryopipe.movies.motion.star import Motion as Track
from cryopipe.movies.motion.star import polynomial_field, read_motion, read_polynomial
from cryopipe.movies.screen_motion import distrust, rejection_reason
from cryopipe.simulation.atoms import AtomicModel, apoferritin
from cryopipe.simulation.camera import SimulatedCamera, draw_camera
from cryopipe.simulation.expose import expose
from cryopipe.simulation.motion import Motion, draw_motion
from cryopipe.simulation.potential import PotentialSampler
from cryopipe.simulation.scene import draw_scene

SIZE, FRAMES, PIXEL_A = 1280, 16, 1.2
PLACES = np.linspace(-0.9, 0.9, 9)


def specimen(name: str) -> AtomicModel:
    """Return the whole cage, one chain of it, or a row of six chains 50 Å apart, centred."""
    model = apoferritin()
    if name == "apoferritin":
        return model
    atoms = len(model.positions_A) // 24
    chain = model.positions_A[:atoms] - model.positions_A[:atoms].mean(axis=0)
    copies = [np.zeros(3)] if name == "monomer" else [np.array([50.0 * (i - 2.5), 0.0, 0.0]) for i in range(6)]
    n = len(copies)
    return AtomicModel(
        np.tile(model.elements[:atoms], n),
        np.concatenate([chain + place for place in copies]),
        np.tile(model.b_factors_A2[:atoms], n),
        np.tile(model.occupancies[:atoms], n),
    )


def camera() -> SimulatedCamera:
    return draw_camera((SIZE, SIZE), 0.03, np.random.default_rng(77))


def correction(simulated: SimulatedCamera) -> tuple[np.ndarray, np.ndarray]:
    """Return the gain, 0 at defects, and the defects [y, x]."""
    bad = (simulated.sensitivity == 0) | simulated.hot
    return np.where(bad, 0, 1 / np.where(bad, 1, simulated.sensitivity)).astype(np.float32), bad


def simulate(
    sampler: PotentialSampler, dose: float, ice_A: float, drift_A: float, seed: int
) -> tuple[np.ndarray, Motion]:
    """Return counted frames, and their motion: it settles by 4 Å beside the straight drift; still: none of both."""
    params = SimulateMovies.model_validate(
        {
            "movies": 1, "width_px": SIZE, "height_px": SIZE, "frames": FRAMES, "pixel_size_A": PIXEL_A,
            "dose_per_frame_e_A2": dose, "particles_per_movie": 40, "ice_thickness_A": ice_A, "special_movies": False,
            "defocus_range_A": (6000.0, 16000.0),
        }
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    motion = draw_motion(
        rng, frames=FRAMES, dose_per_frame_e_A2=dose, pixel_size_A=PIXEL_A, drift_A=4.0 if drift_A else 0.0,
        local_A=1.5 if drift_A else 0.0, excessive_A=drift_A,
    )  # fmt: skip
    scene = replace(draw_scene(params, "ok", rng), motion=motion)
    return np.stack(list(expose(scene, params, sampler, camera(), rng))), motion


def error_A(shifts_px: np.ndarray, local: np.ndarray, motion: Motion) -> tuple[float, float]:
    """Return rms errors (length of the vector) in Å of the frames' mean shifts and of the field at `PLACES`."""
    u, v = np.meshgrid((PLACES + 1) / 2 * (SIZE - 1), (PLACES + 1) / 2 * (SIZE - 1))
    truth = -motion.at(np.stack([u, v], axis=-1), (SIZE, SIZE)).transpose(2, 3, 0, 1)
    rest = shifts_px[:, :, None, None] + local - truth
    rest -= rest.mean(axis=0)
    scale = PIXEL_A * np.sqrt(2)
    return scale * float(np.sqrt((rest.mean(axis=(2, 3)) ** 2).mean())), scale * float(np.sqrt((rest**2).mean()))


def accuracy(drifts: list[float], name: str, repeat: int) -> None:
    """Align a movie for each drift, exposure and ice, and print a row of the table."""
    sampler = PotentialSampler(specimen(name), PIXEL_A)
    gain, bad = correction(camera())
    eyes = Camera(gain, plan_repair(np.argwhere(bad), gain.shape))
    print("| drift | e/Å² a frame | ice | frames, Å rms | field | local | evidence | lost frames | screening |")
    for dose, ice_A in ((2.5, 350.0), (0.8, 350.0), (2.5, 150.0), (0.8, 150.0)):
        for drift_A in drifts:
            for seed in range(repeat):
                frames, motion = simulate(sampler, dose, ice_A, drift_A, 100 * seed + int(drift_A))
                with tempfile.TemporaryDirectory() as folder:
                    write_movie(Path(folder) / "m.tif", iter(frames), PIXEL_A)
                    with open_movie(Path(folder) / "m.tif") as movie:
                        result = align_movie(
                            movie, eyes, AlignMovies(dose_per_frame_e_A2=dose), pixel_size_A=PIXEL_A, voltage_kV=300.0,
                            frame_rng=np.random.default_rng,
                        )  # fmt: skip
                at = (PLACES + 1) / 2 * (SIZE - 1)
                local = np.zeros((FRAMES, 2, 9, 9))
                if result.local is not None:
                    local = np.stack([result.local.at(t, at, at) for t in range(FRAMES)])
                whole, field = error_A(result.motion.shifts_px, local, motion)
                track = Track(result.motion.shifts_px, PIXEL_A, np.arange(1, FRAMES + 1), dose)
                lost = 0 if result.refined.agreement is None else len(result.refined.agreement.lost())
                row: dict[Hashable, Any] = {
                    "crpAlignmentEvidence": result.refined.evidence,
                    "crpFramesLost": lost,
                    "crpFrames": FRAMES,
                }
                screened = rejection_reason(measure_motion(track), ScreenMotion()) or distrust(row, ScreenMotion())
                print(
                    f"| {drift_A:g} | {dose} | {ice_A:g} | {whole:.2f} | {field:.2f} | {result.refined.no_local or 'yes'} "
                    f"| {result.refined.evidence:.0f} | {lost} | {screened or 'kept'} |",
                    flush=True,
                )


STEP = """
import sys
from pathlib import Path
from cryopipe.config.movies import AlignMovies
from cryopipe.context import Context
from cryopipe.movies import align_movies
here = Path(sys.argv[1])
align_movies.main(
    {name: here / file for name, file in (("movies", "in.star"), ("gain", "gain.mrc"), ("defects", "defects.tsv"))},
    {"micrographs": here / "ours/micrographs.star", "rejected": here / "ours/rejected.tsv"},
    AlignMovies(dose_per_frame_e_A2=2.5, pre_exposure_e_A2=0.0), Context("align_movies", here / "work", threads=1),
)
"""


def timing(count: int, peer: str | None) -> None:
    """Run the step, and RELION, on ``count`` small movies and print times and errors."""
    sampler, table = PotentialSampler(specimen("apoferritin"), PIXEL_A), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gain, bad = correction(camera())
        write_image(folder / "gain.mrc", gain, PIXEL_A)
        write_image(
            folder / "gain_relion.mrc", np.where(bad, 1, gain)[::-1].copy(), PIXEL_A
        )  # its TIFF rows run upwards
        write_defects(folder / "defects.tsv", camera().sensitivity == 0, camera().hot)
        motions = {}
        for i in range(count):
            frames, motions[f"m{i}"] = simulate(sampler, 2.5, 350.0, 6.0, i)
            write_movie(folder / f"m{i}.tif", iter(frames), PIXEL_A)
        optics = make_optics(voltage_kV=300.0, cs_mm=2.7, amplitude_contrast=0.1, movie_pixel_size_A=PIXEL_A)
        rows = pd.DataFrame(
            {
                "rlnMicrographMovieName": [f"{item}.tif" for item in motions],
                "rlnOpticsGroup": 1,
                "crpItem": list(motions),
            }
        )
        write_table(folder / "relion.star", StarTable("movies", optics, rows.drop(columns="crpItem")))
        whole = rows.assign(rlnMicrographMovieName=[str(folder / f"{item}.tif") for item in motions])
        write_table(folder / "in.star", StarTable("movies", optics, whole))
        one = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
        runs = {"align_movies": [sys.executable, "-c", STEP, name]}
        if peer:
            command = (
                "relion_run_motioncorr --use_own --i relion.star --o theirs/ --first_frame_sum 1 --last_frame_sum -1 --j 1 "
                "--bin_factor 1 --bfactor 150 --dose_per_frame 2.5 --preexposure 0 --patch_x 5 --patch_y 5 --dose_weighting "
                "--save_noDW --gainref gain_relion.mrc"
            )
            runs["RELION"] = command.split()
        subprocess.run(runs["align_movies"], check=True, env=one, cwd=folder)  # compiles
        for left in ("ours", "work"):
            shutil.rmtree(folder / left)
        for program, words in runs.items():
            with Stopwatch(children=True) as watch:
                subprocess.run(words, check=True, env=one, cwd=folder, capture_output=True)
            found = [_error(folder, program, item, motion) for item, motion in motions.items()]
            table.append(
                {"program": program, "cpu_seconds": watch.cpu_seconds, "seconds": watch.seconds}
                | dict(zip(("frames_A", "field_A"), np.mean(found, axis=0).tolist(), strict=True))
            )
            print(json.dumps(table[-1]), flush=True)


def _error(folder: Path, program: str, item: str, motion: Motion) -> tuple[float, float]:
    """Return the errors of one movie from the motion file that a program left."""
    theirs = program == "RELION"  # its rows run upwards
    file = next((folder / "theirs").rglob(f"{item}.star")) if theirs else folder / f"ours/motion/{item}.star"
    flip, rows = np.array([1.0, -1.0 if theirs else 1.0]), (PLACES[::-1] if theirs else PLACES) / 2
    model = read_polynomial(file)
    local = np.zeros((FRAMES, 2, 9, 9))
    if model is not None:
        local = polynomial_field(model, np.arange(FRAMES), rows, PLACES / 2)
    return error_A(read_motion(file).shifts_px * flip, local * flip[None, :, None, None], motion)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drifts", type=float, nargs="+", default=[0, 15, 40, 60, 100])
    parser.add_argument("--specimen", choices=["apoferritin", "monomer", "rod"], default="apoferritin")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--time", type=int, default=0, metavar="MOVIES")
    parser.add_argument("--peer", choices=["relion"])
    arguments = parser.parse_args()
    threadpool_limits(1, user_api="blas")  # as in the step
    if arguments.time:
        timing(arguments.time, arguments.peer)
    else:
        accuracy(arguments.drifts, arguments.specimen, arguments.repeat)


if __name__ == "__main__":
    main()
