"""Step ``align_movies``: global and local motion, plain and dose-weighted averages, motion files for polishing.

First every two frames are correlated, and robust least squares gives the frame positions (`global_alignment`). Then the
positions and a spline field over (x, y, t) are refined together on patches. Each patch is compared with the sum of all
frames, and the measured signal sets the weights (`joint_motion`). Frames are warped and averaged in one pass: once
without weights (for CTF estimation) and once dose-weighted (for picking and extraction). The reference frame, whose
shift is zero, is the middle one, ``n // 2``. Coordinates on the micrograph are those of the specimen in that frame.

References
----------
Střelák et al. 2020, Electronics 9:1040, doi:10.3390/electronics9061040 (FlexAlign); Grant & Grigorieff 2015, eLife
4:e06980, doi:10.7554/eLife.06980 (exposure filter). Known limits: a frame below about 750 Å gets no local model. Where
a specimen tears, its motion is not smooth over 500 Å, and only its global motion is followed.

Memory needed on two threads: some 15 images in float32 at the movie's sampling, decoded frames up to `frame_cache_GB`,
and at most 1 GB of spectra. This is 2.5 GB for 3838 x 3710 x 50, and 4 GB for a super-resolution movie of 7676 x 7420
that is binned by 2.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from cryopipe.config.movies import AlignMovies
from cryopipe.context import Context
from cryopipe.errors import InputError, ItemError
from cryopipe.imaging.fourier import resample
from cryopipe.io.movies import Movie
from cryopipe.io.mrc import read_image, write_image
from cryopipe.io.star import StarTable, read_table, write_rejections, write_table
from cryopipe.items import Row, process_items
from cryopipe.movies.gain.defects import DefectRepair, plan_repair, read_defects
from cryopipe.movies.motion.correlation import correlation_grid, correlation_spectrum
from cryopipe.movies.motion.frame_sums import SPACING, FrameSums
from cryopipe.movies.motion.global_alignment import (
    GlobalMotion,
    estimate_global_motion,
)
from cryopipe.movies.motion.joint_motion import RefinedMotion, refine_motion
from cryopipe.movies.motion.local_alignment import LocalMotion
from cryopipe.movies.motion.patch_spectra import patch_spectra, reduced, reduction
from cryopipe.movies.motion.pictures import composite_spectrum, save_grey, save_trajectory, thumbnail
from cryopipe.movies.motion.star import accumulated_motion_A, write_motion
from cryopipe.movies.movie_list import MovieEntry, movie_entries

S = TypeVar("S")
T = TypeVar("T")

#: Movies whose frames, as float32, are smaller than this are aligned side by side, one thread each. All threads work on
#: one larger movie at a time, so that memory does not multiply.
_SMALL_MOVIE_BYTES = 256e6

_COLUMNS = (
    "rlnMicrographName",
    "crpMicrographNameDW",
    "rlnMicrographMovieName",
    "rlnMicrographMetadata",
    "rlnOpticsGroup",
    "rlnAccumMotionTotal",
    "rlnAccumMotionEarly",
    "rlnAccumMotionLate",
    "crpItem",
    "crpFrames",
    "crpAlignmentResidual",
    "crpAlignmentAgreeing",
    "crpAlignmentEvidence",
    "crpFramesLost",
    "crpLocalPatches",
    "crpLocalResidual",
    "crpNoLocalMotion",
)


@dataclass(frozen=True)
class Camera:
    """What turns raw frames into images: multiplicative gain [y, x] (0 at defects) and the repair of defects."""

    gain: np.ndarray
    repair: DefectRepair

    def correct(self, raw: np.ndarray, rng: np.random.Generator, out: np.ndarray | None = None) -> np.ndarray:
        """Return the corrected frame [y, x] float32. It is written into ``out`` if given, since new memory costs time."""
        if raw.shape != self.gain.shape:
            raise ItemError(
                f"frames have {raw.shape[1]} x {raw.shape[0]} pixels, but the gain has {self.gain.shape[1]} x "
                f"{self.gain.shape[0]}. "
                "Process movies of another size as another dataset."
            )
        frame = np.multiply(raw, self.gain, out=out, dtype=np.float32, casting="same_kind")
        self.repair.apply(frame, rng)
        return frame


@dataclass(frozen=True)
class AlignedMovie:
    """Averages [y, x] float32 with the same sampling (``weighted`` is None without an exposure), and the motion."""

    average: np.ndarray
    weighted: np.ndarray | None
    unaligned: np.ndarray
    motion: GlobalMotion
    refined: RefinedMotion

    @property
    def local(self) -> LocalMotion | None:
        """Local field, if there is one."""
        return self.refined.local


def load_camera(gain: Path, defects: Path) -> Camera:
    """Read the gain and the list of defects that ``estimate_gain`` wrote."""
    image, _ = read_image(gain)
    return Camera(image, plan_repair(read_defects(defects), image.shape))


def correlation_resolution_A(params: AlignMovies) -> float:
    """Return the resolution of the correlation: the given one, or else 15 Å above 1 e/Å² per frame and 20 Å below."""
    if params.max_resolution_A is not None:
        return params.max_resolution_A
    return 15.0 if (params.dose_per_frame_e_A2 or 0.0) > 1.0 else 20.0


def align_movie(
    movie: Movie,
    camera: Camera,
    params: AlignMovies,
    *,
    pixel_size_A: float,
    voltage_kV: float,
    frame_rng: Callable[[int], np.random.Generator],
    threads: int = 1,
) -> AlignedMovie:
    """Align the frames of an open movie and average them.

    Parameters
    ----------
    movie : Movie
        Open movie [n, y, x].
    camera : Camera
        Gain and defects.
    params : AlignMovies
        Parameters of the step.
    pixel_size_A, voltage_kV : float
        Of the movie.
    frame_rng : callable
        Random generator of a frame, for its defects. It is the same one each time the frame is read.
    threads : int
        Threads. The result does not depend on it.

    Raises
    ------
    InputError
        A frame cannot be read or has another size than the gain, or the frames cannot be connected.
    """
    n, ny, nx = movie.shape
    grid = correlation_grid((ny, nx), pixel_size_A, correlation_resolution_A(params))
    block = reduction(pixel_size_A, params.finest_resolution_A)
    # of small movies memory is no matter, and conversions are
    dtype = np.float32 if 4 * n * ny * nx <= _SMALL_MOVIE_BYTES * block**2 else np.float16
    keep = n * ny * nx * movie.dtype.itemsize <= params.frame_cache_GB * 1e9
    cache: list[np.ndarray] = []
    small: list[np.ndarray] = []
    spectra = []
    unaligned = np.zeros((ny, nx), dtype=np.float32)

    buffers = [np.empty((ny, nx), dtype=np.float32) for _ in range(max(threads, 1))]

    def correct(slot: int, numbered: tuple[int, np.ndarray]) -> np.ndarray:
        return camera.correct(numbered[1], frame_rng(numbered[0]), out=buffers[slot])

    def prepare(slot: int, numbered: tuple[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        frame = correct(slot, numbered)
        return frame, correlation_spectrum(frame, grid), reduced(frame, block, dtype)

    for raws, prepared in in_groups(enumerate(movie.iterate(threads=threads)), prepare, threads):
        if keep:
            cache += [raw for _, raw in raws]
        for frame, spectrum, little in prepared:
            unaligned += frame
            spectra.append(spectrum)
            small.append(little)
    motion = estimate_global_motion(
        spectra,
        grid,
        max_shift_A=params.max_shift_A,
        robust_iterations=params.robust_iterations,
        refine_iterations=params.refine_iterations,
        threads=threads,
    )
    del spectra
    patches = patch_spectra(
        small,
        block,
        (ny, nx),
        pixel_size_A,
        motion.shifts_px,
        patch_A=params.patch_A,
        finest_A=params.finest_resolution_A,
        threads=threads,
    )
    small.clear()
    refined = refine_motion(
        patches,
        motion.shifts_px,
        shape=(ny, nx),
        reference=motion.reference,
        resolution_A=grid.resolution_A,
        local=params.local,
        threads=threads,
    )
    del patches
    motion, local = replace(motion, shifts_px=refined.shifts_px), refined.local
    dose = params.dose_per_frame_e_A2
    exposures = None if dose is None else (params.pre_exposure_e_A2 or 0.0) + dose * np.arange(1, n + 1)
    sums = FrameSums((ny, nx), pixel_size_A, voltage_kV, exposures, frames=n, binning=params.binning, threads=threads)
    frames: Iterator[np.ndarray] = iter(cache) if keep else movie.iterate(threads=threads)
    for raws, corrected in in_groups(enumerate(frames), correct, threads):
        for (index, _), frame in zip(raws, corrected, strict=True):
            shift = motion.shifts_px[index]
            field = shift if local is None else local.nodes(index, SPACING) + shift[:, None, None]
            sums.add(frame, field)
    cache.clear()
    buffers.clear()
    weighted = None if dose is None else sums.weighted_average()
    unaligned /= np.float32(n)
    if params.binning > 1:
        unaligned = resample(unaligned, sums.new_shape, threads=threads)
    return AlignedMovie(sums.average(), weighted, unaligned, motion, refined)


def in_groups(items: Iterable[S], work: Callable[[int, S], T], threads: int) -> Iterator[tuple[list[S], list[T]]]:
    """Yield ``threads`` items at a time with what ``work(place in the group, item)`` made of each, one thread per item.

    No more than these results exist at once: they are as large as frames.
    """
    source = iter(items)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        while group := list(itertools.islice(source, max(threads, 1))):
            yield group, list(pool.map(work, range(len(group)), group))


def _item_files(folder: Path, item: str) -> dict[str, Path]:
    return {
        "average": folder / "micrographs" / f"{item}.mrc",
        "weighted": folder / "micrographs" / f"{item}_DW.mrc",
        "motion": folder / "motion" / f"{item}.star",
        "psd": folder / "pictures" / f"{item}_psd.png",
        "shifts": folder / "pictures" / f"{item}_shifts.png",
        "thumbnail": folder / "pictures" / f"{item}_micrograph.png",
    }


def _with_exposure_of(entry: MovieEntry, params: AlignMovies) -> AlignMovies:
    """Return the parameters with the exposure of the movie's optics group, unless dose weighting is switched off."""
    if params.dose_per_frame_e_A2 is None or entry.dose_per_frame_e_A2 is None:
        return params
    own = {"dose_per_frame_e_A2": entry.dose_per_frame_e_A2}
    if entry.pre_exposure_e_A2 is not None:
        own["pre_exposure_e_A2"] = entry.pre_exposure_e_A2
    return params.model_copy(update=own)


def _process(
    entry: MovieEntry, folder: Path, gain: Path, camera: Camera, params: AlignMovies, context: Context, threads: int
) -> Row:
    """Align one movie, write its files and return its row of the micrograph table."""
    files = _item_files(folder, entry.item)
    params = _with_exposure_of(entry, params)
    with entry.open() as movie:
        shape = movie.shape
        result = align_movie(
            movie,
            camera,
            params,
            pixel_size_A=entry.pixel_size_A,
            voltage_kV=entry.voltage_kV,
            frame_rng=lambda index: context.rng(f"{entry.item}/{index}"),
            threads=threads,
        )
    pixel_size_A = entry.pixel_size_A * params.binning
    dose, before = params.dose_per_frame_e_A2, params.pre_exposure_e_A2 or 0.0
    shifts = result.motion.shifts_px
    write_image(files["average"], result.average, pixel_size_A, half=params.float16)
    if result.weighted is not None:
        write_image(files["weighted"], result.weighted, pixel_size_A, half=params.float16)
    write_motion(
        files["motion"],
        shifts,
        movie=entry.path,
        frame_shape=shape[1:],
        pixel_size_A=entry.pixel_size_A,
        voltage_kV=entry.voltage_kV,
        binning=params.binning,
        gain=gain,
        dose_per_frame_e_A2=dose,
        pre_exposure_e_A2=before,
        local=result.local,
    )
    shown = result.average if result.weighted is None else result.weighted
    save_grey(files["psd"], composite_spectrum(result.unaligned, result.average))
    save_grey(files["thumbnail"], thumbnail(shown), low=0.5, high=99.5)
    save_trajectory(files["shifts"], shifts, entry.pixel_size_A, entry.item, result.local)
    total, early, late = accumulated_motion_A(shifts, entry.pixel_size_A, dose, before)
    values = (
        str(files["average"]),
        str(files["average"] if result.weighted is None else files["weighted"]),
        str(entry.path),
        str(files["motion"]),
        entry.optics_group,
        total,
        early,
        late,
        entry.item,
        shape[0],
        result.motion.residual_px * entry.pixel_size_A,
        result.motion.agreeing,
        result.refined.evidence,
        0 if result.refined.agreement is None else len(result.refined.agreement.lost()),
        0 if result.local is None else int(np.prod(result.local.patches)),
        0.0 if result.local is None else result.local.residual_px * entry.pixel_size_A,
        result.refined.no_local or "none",
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _made(folder: Path, item: str, row: Row) -> list[Path]:
    files = _item_files(folder, item)
    if row["crpMicrographNameDW"] == row["rlnMicrographName"]:
        del files["weighted"]
    return list(files.values())


def main(inputs: dict[str, Any], outputs: dict[str, Path], params: AlignMovies, context: Context) -> None:
    """Align the movies of a batch.

    Inputs: ``movies`` (STAR), ``gain`` (MRC) and ``defects`` (TSV). Outputs: ``micrographs`` (STAR; images and motion files
    lie beside it) and ``rejected`` (TSV).
    """
    import pandas as pd

    table = read_table(inputs["movies"], "movies")
    entries = movie_entries(table)
    folder = outputs["micrographs"].parent
    # One BLAS thread: the order of additions, and so the result, must not depend on the number of threads.
    with threadpool_limits(1, user_api="blas"):
        camera = load_camera(inputs["gain"], inputs["defects"])
        small = camera.gain.size * 4 * _frames_of_first(entries) <= _SMALL_MOVIE_BYTES
        outer = context.threads if small else 1
        inner = 1 if small else context.threads
        results = process_items(
            entries,
            lambda item, entry: _process(entry, folder, inputs["gain"], camera, params, context, inner),
            context,
            params=params,
            reads=lambda item, entry: [entry.path, inputs["gain"], inputs["defects"]],
            makes=lambda item, row: _made(folder, item, row),
            threads=outer,
        )
    optics = table.optics
    if len(optics):
        optics = optics.assign(
            rlnMicrographPixelSize=optics["rlnMicrographOriginalPixelSize"].astype(float) * params.binning
        )
    rows = pd.DataFrame(results.rows, columns=list(_COLUMNS))
    write_table(outputs["micrographs"], StarTable("micrographs", optics, rows))
    write_rejections(outputs["rejected"], results.rejections)


def _frames_of_first(entries: dict[str, MovieEntry]) -> int:
    for entry in entries.values():
        try:
            with entry.open() as movie:
                return len(movie)
        except (InputError, OSError, ValueError):
            continue
    return 1
