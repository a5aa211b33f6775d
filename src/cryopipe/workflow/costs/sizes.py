"""Counts and sizes of a run before it starts: from the configuration, the list of its files and one header."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cryopipe.config.declaration.costs import Sizes
from cryopipe.config.derive import resolve
from cryopipe.config.movies import AlignMovies
from cryopipe.config.particles import ExtractParticles
from cryopipe.errors import CryopipeError
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.io.movies import open_movie
from cryopipe.particles.cut import friendly_box
from cryopipe.workflow.plan import Plan

#: Share of the area of real micrographs that particles fill, each with a square of its diameter. Simulated fields have 0.67,
#: crowded real ones 0.5, EMPIAR-10146 0.07. It is not known before the particles are picked.
FILLED_SHARE = 0.5
#: Largest memory for the particles of a job that is asked for if run.memory_GB is null. Images beyond it are read again.
LARGEST_BUDGET_GB = 16.0
#: Frames, rows and columns that are assumed while no file can be read: those of a large camera.
ASSUMED_SHAPE = (50, 4096, 4096)
#: Bytes per pixel after LZW compression with 1 electron per pixel, and the power of the electrons with which they grow
#: (measured: 0.2 at 1, 0.7 at 20).
COMPRESSED, COMPRESSED_POWER = 0.22, 0.4


@dataclass(frozen=True)
class MovieSize:
    """Size of a movie of the run, from a header or assumed.

    Attributes
    ----------
    shape : tuple of int
        Frames, rows, columns. A micrograph has one frame.
    frame_bytes : int
        Bytes of a decoded pixel.
    file_MB : float
        Size of the file.
    known_from : str
        Where these numbers come from, in words.
    """

    shape: tuple[int, int, int]
    frame_bytes: int
    file_MB: float
    known_from: str


def first_movie(plan: Plan) -> MovieSize:
    """Return the size of the run's first movie or micrograph: simulated, read from its header, or assumed."""
    if plan.config.simulation is not None:
        value = plan.config.simulation.simulate_movies.value
        counts = value("dose_per_frame_e_A2") * value("pixel_size_A") ** 2
        share = COMPRESSED * counts**COMPRESSED_POWER
        return _assumed((value("frames"), value("height_px"), value("width_px")), "the simulation", share=share)
    name = next(file for files in plan.batches.values() for file in files)
    if plan.is_remote:
        size = plan.archived[name].size if name in plan.archived else None
        found = _assumed(ASSUMED_SHAPE, "an assumption, because the movies are not here yet")
        return found if size is None else replace(found, file_MB=size / 1e6)
    eer = plan.config.movies.import_movies
    try:
        with open_movie(name, eer_grouping=eer.eer_grouping, eer_upsampling=eer.eer_upsampling) as movie:
            path = Path(name)
            return MovieSize(
                movie.shape, np.dtype(movie.dtype).itemsize, path.stat().st_size / 1e6, f"the header of {path.name}"
            )
    except (CryopipeError, OSError, ValueError) as error:
        return _assumed(ASSUMED_SHAPE, f"an assumption, because the first file cannot be read ({error})")


def _assumed(shape: tuple[int, int, int], known_from: str, *, share: float = COMPRESSED) -> MovieSize:
    return MovieSize(shape, 1, share * shape[0] * shape[1] * shape[2] / 1e6, known_from)


def run_sizes(plan: Plan, movie: MovieSize) -> Sizes:
    """Return the counts and sizes of the whole run.

    Parameters
    ----------
    plan : Plan
        The run.
    movie : MovieSize
        Size of a movie, from `first_movie`.
    """
    params = resolve(plan.config)
    aligned, extracted = params["align_movies"], params["extract_particles"]
    assert isinstance(aligned, AlignMovies)
    assert isinstance(extracted, ExtractParticles)
    frames, rows, columns = movie.shape
    binning = aligned.binning if plan.source != "micrographs" else 1
    pixel_A = float(plan.facts.pixel_size_A or 1) * binning
    sides = rows // binning, columns // binning
    micrograph_px = sides[0] * sides[1]
    downsample = float(extracted.downsample or 1)
    box_px = extracted.box_px or friendly_box(float(extracted.box_A or 0) / (pixel_A * downsample))
    # particles whose box crosses the border are left out
    inside = math.prod(max(0.0, 1 - box_px * downsample / side) for side in sides)
    images = sum(map(len, plan.batches.values()))
    return Sizes(
        images=images,
        frames=frames,
        frame_px=rows * columns,
        frame_bytes=movie.frame_bytes,
        movie_MB=movie.file_MB,
        micrograph_px=micrograph_px,
        micrograph_pixel_A=pixel_A,
        particles=max(1, round(inside * images * particles_of_a_micrograph(plan, micrograph_px * pixel_A**2))),
        box_px=box_px,
        pixel_A=pixel_A * downsample,
        symmetry_order=len(symmetry_operators(str(plan.facts.symmetry))),
        budget_MB=1000 * (plan.config.run.memory_GB or LARGEST_BUDGET_GB),
    )


def particles_of_a_micrograph(plan: Plan, area_A2: float) -> int:
    """Return how many particles a micrograph has: the stated or simulated number, or a number from its area.

    Parameters
    ----------
    plan : Plan
        The run.
    area_A2 : float
        Area of a micrograph.
    """
    if plan.config.run.particles_per_micrograph is not None:
        return plan.config.run.particles_per_micrograph
    if plan.config.simulation is not None:
        return int(plan.config.simulation.simulate_movies.value("particles_per_movie"))
    return max(1, round(FILLED_SHARE * area_A2 / float(plan.facts.particle_diameter_A or 1) ** 2))


def batch_sizes(whole: Sizes, images: int) -> Sizes:
    """Return the sizes of a job on ``images`` of the run's movies or micrographs."""
    return replace(whole, images=images, particles=-(-whole.particles * images // whole.images))
