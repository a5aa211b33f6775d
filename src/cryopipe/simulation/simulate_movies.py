"""Step ``simulate_movies``: movies of particles in ice whose truth is known, in place of a download.

The potential is computed from atoms. It gives contrast with an exact CTF, which moves and fades with exposure. A
camera with a gain of its own counts the electrons. The physics, its sources and its limits are described in
`cryopipe.simulation.potential`, `cryopipe.simulation.scenery` and `cryopipe.simulation.expose`. Nothing here uses the
engines that the data will judge. Every movie has its own seed, so the order of movies and the number of threads change
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.fft
from threadpoolctl import threadpool_limits

from cryopipe.config.simulation import SimulateMovies
from cryopipe.context import Context
from cryopipe.errors import CryopipeError, InputError
from cryopipe.io.movies import write_movie
from cryopipe.io.mrc import write_image, write_volume
from cryopipe.io.star import StarTable, make_optics, write_blocks, write_table
from cryopipe.items import Row, process_items
from cryopipe.simulation.atoms import AtomicModel, apoferritin, fetch_model, read_model, symmetry_error_A
from cryopipe.simulation.camera import SimulatedCamera, draw_camera
from cryopipe.simulation.expose import expose
from cryopipe.simulation.potential import PotentialSampler
from cryopipe.simulation.scene import draw_scene, kinds_of
from cryopipe.simulation.truth import (
    PARTICLE_COLUMNS,
    frame_of,
    local_records,
    movie_record,
    particle_records,
    shift_records,
)

#: Largest distance of atoms from their symmetry mates: deposited chains differ by some tenths of an Å.
_SYMMETRY_TOLERANCE_A = 1.5
#: Length of the truth map over the diameter of the particle (room for masks), and its finest pixel size in Å (finer than any
#: map of these particles can be).
_MAP_LENGTH = 1.5
_MAP_PIXEL_SIZE_A = 0.7
#: Memory of a movie in bytes per pixel of a frame with its margin (measured: 55), and what all movies together may take.
_BYTES_PER_PIXEL = 60 * 1.25
_MEMORY_BYTES = 2.5e9


def particle_model(params: SimulateMovies, folder: Path, file: Path | None = None) -> tuple[AtomicModel, Path | None]:
    """Return the atoms of the particle and the file from which they were read (None for the embedded model).

    The model is the embedded one, a file (``file`` if given, else ``params.model``), or a PDB entry that is downloaded into
    ``folder``.

    Raises
    ------
    InputError
        The model cannot be read or downloaded, or it does not have the symmetry that is stated.
    """
    if params.model is None:
        if params.symmetry.upper() != "O":
            raise InputError(
                f"simulate_movies: the embedded apoferritin has symmetry O, but symmetry is {params.symmetry}. Set O."
            )
        return apoferritin(), None
    path = file or Path(params.model)
    if not path.is_file():
        if len(params.model) != 4 or not params.model.isalnum():
            raise InputError(
                f"simulate_movies: model {params.model!r} is neither a file nor a PDB id of four characters."
            )
        path = fetch_model(params.model, folder)
    model = read_model(path, assembly=params.assembly, operators=params.operators, group=params.expand)
    error_A = symmetry_error_A(model, params.symmetry)
    if error_A > _SYMMETRY_TOLERANCE_A:
        raise InputError(
            f"simulate_movies: {path} does not have symmetry {params.symmetry} with RELION's axes: atoms are {error_A:.1f} Å "
            "from their symmetry mates. "
            "Give the whole particle with RELION's axes, or set simulation.simulate_movies.expand, or symmetry: C1."
        )
    return model, path


def simulate_movie(
    item: str,
    path: Path,
    kind: str,
    params: SimulateMovies,
    sampler: PotentialSampler,
    camera: SimulatedCamera,
    context: Context,
) -> Row:
    """Draw and write one movie; return its truth.

    Parameters
    ----------
    item : str
        Name of the movie; its random numbers follow from it.
    path : Path
        File to write, ``.tif`` or ``.mrcs``.
    kind : str
        What is wrong with the movie, if anything; see :func:`cryopipe.simulation.scene.kinds_of`.
    params : SimulateMovies
        The acquisition.
    sampler : PotentialSampler
        Potential of the particle at the movie's pixel size.
    camera : SimulatedCamera
        Counts the electrons.
    context : Context
        Source of the seed.
    """
    rng = context.rng(item)
    scene = draw_scene(params, kind, rng)  # type: ignore[arg-type]
    frames: Iterable[np.ndarray] = expose(scene, params, sampler, camera, rng)
    if path.suffix == ".mrcs":  # MRC has no unsigned 8-bit integers
        frames = (frame.astype(np.uint16) for frame in frames)
    write_movie(path, frames, params.value("pixel_size_A"))
    return {
        "movie": movie_record(item, str(path), scene, params, camera),
        "particles": particle_records(item, str(path), scene, params),
        "shifts": shift_records(item, scene),
        "local": local_records(item, scene),
    }


def main(inputs: dict[str, Any], outputs: dict[str, Path], params: SimulateMovies, context: Context) -> None:
    """Write movies, gain reference and truth.

    Parameters
    ----------
    inputs : dict
        ``model``, the atomic model's file where ``params.model`` names one.
    outputs : dict of Path
        ``movies``, ``gain``, ``truth_map``, ``truth_particles``, ``truth_movies``; movies lie beside their table.
    params : SimulateMovies
        Options of the step.
    context : Context
        Seed, threads and the folder of finished movies.
    """
    folder = outputs["movies"].parent
    pixel = params.value("pixel_size_A")
    shape = (params.value("height_px"), params.value("width_px"))
    paths = {Path(name).stem: Path(name) for name in params.movie_paths(str(folder))}
    kinds = dict(zip(paths, kinds_of(len(paths), params.special_movies, context.rng("kinds")), strict=True))
    camera = draw_camera(shape, params.gain_sigma, context.rng("camera"))
    model, source = particle_model(params, context.work_dir, inputs.get("model") or None)

    def work(item: str, facts: tuple[Path, str]) -> Row:
        with scipy.fft.set_workers(max(1, context.threads // movies_at_once)):
            return simulate_movie(item, *facts, params, sampler, camera, context)

    # with one BLAS thread sums do not depend on the number of threads
    movies_at_once = max(1, min(context.threads, int(_MEMORY_BYTES / (_BYTES_PER_PIXEL * shape[0] * shape[1]))))
    with threadpool_limits(1, user_api="blas"):
        sampler = PotentialSampler(model, pixel)
        results = process_items(
            {item: (path, kinds[item]) for item, path in paths.items()},
            work,
            context,
            params=params,
            reads=lambda item, facts: [source] if source else [],
            makes=lambda item, row: [paths[item]],
            threads=movies_at_once,
        )
        if results.rejections:  # no input can be bad here, so a movie that fails is a fault of the program
            raise CryopipeError(f"simulate_movies: {results.rejections[0].item}: {results.rejections[0].reason}")
        map_pixel = max(pixel, _MAP_PIXEL_SIZE_A)
        box = 2 * int(np.ceil(_MAP_LENGTH * model.diameter_A / map_pixel / 2))
        truth_map = PotentialSampler(model, map_pixel).volume(box, threads=context.threads)
    write_volume(outputs["truth_map"], truth_map, map_pixel)
    write_image(outputs["gain"], camera.reference, pixel)
    _write_tables(results.rows, outputs, params)


def _write_tables(rows: list[Row], outputs: dict[str, Path], params: SimulateMovies) -> None:
    optics = make_optics(
        voltage_kV=params.voltage_kV,
        cs_mm=params.cs_mm,
        amplitude_contrast=params.amplitude_contrast,
        movie_pixel_size_A=params.value("pixel_size_A"),
        micrograph_pixel_size_A=params.value("pixel_size_A"),
    )
    movies = frame_of([row["movie"] for row in rows])
    particles = frame_of([record for row in rows for record in row["particles"]], PARTICLE_COLUMNS)
    write_table(outputs["truth_particles"], StarTable("particles", optics, particles))
    blocks = {name: pd.DataFrame([record for row in rows for record in row[name]]) for name in ("shifts", "local")}
    write_blocks(
        outputs["truth_movies"],
        {"optics": optics, "movies": movies, "global_shift": blocks["shifts"], "local_motion": blocks["local"]},
    )
    listing = movies[["rlnMicrographMovieName", "crpItem", "rlnOpticsGroup"]].assign(
        rlnMicrographDoseRate=float(params.value("dose_per_frame_e_A2")), rlnMicrographPreExposure=0.0
    )
    write_table(outputs["movies"], StarTable("movies", optics.drop(columns="rlnMicrographPixelSize"), listing))
