"""Gold-standard refinement of one structure: two half sets that never meet, frequency marching, continuous poses.

Every iteration, each half searches its particles (all of them globally at first, later those whose pose is ambiguous),
refines poses continuously to the resolution reached, re-estimates noise (and, on request, grey scales and defoci), and
reconstructs. The halves then share an FSC curve and their shells coarser than ``join_resolution_A``; the curve filters
the next references and says how far the next iteration may go. The last reconstruction takes every frequency of the
full box.

Sources: Scheres & Chen 2012 (doi:10.1038/nmeth.2115) for independent halves, Scheres 2012
(doi:10.1016/j.jsb.2012.09.006) for the Wiener-filtered references, Punjani et al. 2017 (doi:10.1038/nmeth.4169) and
Grigorieff 2007 (doi:10.1016/j.jsb.2006.05.004) for the marching and the continuous poses. Known limits: one structure;
no local filter, no higher aberrations; poses are points, weighed by their confidence in the global iterations only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopipe.config.base import require
from cryopipe.config.refinement import RefineHomogeneous
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.fingerprint import fingerprint
from cryopipe.imaging.backend import to_numpy
from cryopipe.imaging.filters import apply_shell_curve, fsc_weight, low_pass
from cryopipe.imaging.fsc import MaskedFsc, masked_fsc, resolution_at
from cryopipe.imaging.geometry import matrix_to_euler
from cryopipe.imaging.optics import CtfParameters, from_table
from cryopipe.imaging.symmetry import reduce_to_asymmetric_unit
from cryopipe.io.atomic import atomic_write
from cryopipe.io.mrc import read_volume, write_volume
from cryopipe.io.star import StarTable, read_table, write_table
from cryopipe.io.star_blocks import write_blocks
from cryopipe.iteration.exchange import Shared, compare, masked_reference, next_reference
from cryopipe.iteration.half_set import HalfSet, Task, advance, needed_columns, with_ctfs
from cryopipe.iteration.next_radius import THRESHOLD, next_search_radius
from cryopipe.poses.ctf import changed_parameters
from cryopipe.projection.particle_keys import canonical_order
from cryopipe.projection.particle_spectra import ParticleSpectra, load_particle_spectra
from cryopipe.projection.working_box import resize_map, working_box
from cryopipe.reconstruction.dynamic_mask import dynamic_mask
from cryopipe.reconstruction.half_sets import half_sets_of
from cryopipe.reconstruction.memory import check_memory
from cryopipe.reconstruction.reconstruct import Reconstruction
from cryopipe.refinement.checkpoint import Progress, load_progress, save_progress

#: how much further than the present resolution an iteration reconstructs, and by how much the next may go on
REACH = 1.3
REACH_SHELLS = 8
GROWTH = 1.4
#: a refinement has converged when two iterations in a row gain less than this share of the best radius before
LEAST_GAIN = 0.02
#: ... and when its poses move by less than this share of the angle that moves the particle's rim by one resolution element
SETTLED_ANGLE = 0.25
#: every so many iterations a share of the confident particles is searched globally again
RANDOM_SEARCH_EVERY = 4
RANDOM_SEARCH_SHARE = 0.05
CTF_COLUMNS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
HISTORY = (
    "iteration",
    "radius",
    "fsc143_A",
    "masked",
    "median_angle_change_deg",
    "mean_confidence",
    "median_defocus_change_A",
    "median_astigmatism_change_A",
)


@dataclass(frozen=True)
class Halves:
    """Images, CTF parameters and micrographs of the two half sets, in the order of their rows in the table."""

    images: tuple[ParticleSpectra, ParticleSpectra]
    parameters: tuple[CtfParameters, CtfParameters]
    micrographs: tuple[NDArray[Any], NDArray[Any]]
    rows: tuple[NDArray[np.int64], NDArray[np.int64]]

    @property
    def side_A(self) -> float:
        """Side of the images in Å."""
        return self.images[0].box * self.images[0].pixel_size_A


def refine(
    halves: Halves,
    initial: NDArray[np.float32],
    params: RefineHomogeneous,
    context: Context,
    *,
    exchange: Any = compare,
) -> Progress:
    """Iterate to convergence, from the checkpoint if there is one.

    Parameters
    ----------
    halves : Halves
        Images at full size.
    initial : array float32 [z, y, x]
        Initial map at the images' box and pixel size, any grey scale.
    params : RefineHomogeneous
        Options.
    context : Context
        Random numbers, threads, folder of the checkpoint.
    exchange : callable
        :func:`cryopipe.iteration.exchange.compare`, or a stand-in that tests what passes between the halves.

    Returns
    -------
    Progress
        Poses, noise and history; the final maps come from :func:`final_halves`.
    """
    path = context.work_dir / "progress.npz"
    stamp = fingerprint(context, params, halves, initial)
    progress = load_progress(path, stamp) or start_progress(halves, initial, params)
    while not finished(progress, params):
        progress = iterate(progress, halves, params, context, exchange=exchange)
        save_progress(path, progress, stamp)
        last = progress.history[-1]
        context.log.info(
            "iteration %d: to shell %d, FSC 0.143 at %.2f A, poses move by %.2f deg", *np.take(last, [0, 1, 2, 4])
        )
        context.progress(progress.iteration, params.max_iterations, "iterations, at most")
    return progress


def start_progress(halves: Halves, initial: NDArray[np.float32], params: RefineHomogeneous) -> Progress:
    """Return the state before the first iteration: the low-passed initial map for both halves, no poses."""
    lowpass, diameter = require(params, "initial_lowpass_A", "particle_diameter_A")
    images = halves.images[0]
    filtered = low_pass(initial, images.pixel_size_A, lowpass)
    radius = min(max(round(halves.side_A / lowpass), 4), images.pixels.radius)
    box = working_box(reach(radius, images.pixels.radius), largest=images.box)
    small = resize_map(filtered, box)
    start = masked_reference(small, pixel_size_A=halves.side_A / box, diameter_A=diameter, mask_options=None, threads=1)
    states = (HalfSet.start(halves.images[0]), HalfSet.start(halves.images[1]))
    return Progress(0, radius, states, (start, start), [], False)


def reach(radius: int, largest: int) -> int:
    """Return the shells to reconstruct when poses use ``radius``."""
    return min(max(int(np.ceil(REACH * radius)), radius + REACH_SHELLS), largest)


def iterate(
    progress: Progress, halves: Halves, params: RefineHomogeneous, context: Context, *, exchange: Any
) -> Progress:
    """Advance both halves by one iteration and let them share what they may."""
    i, largest = progress.iteration, halves.images[0].pixels.radius
    task = plan(progress, halves, params)
    states, sums = [], []
    for half in (0, 1):
        reference = resize_map(progress.references[half], task.box)
        state, accumulated = advance(
            progress.states[half],
            halves.images[half],
            halves.parameters[half],
            reference,
            task,
            params,
            context.rng(f"iteration {i} half {half + 1}"),
            micrographs=halves.micrographs[half],
            threads=context.threads,
            devices=context.gpus or None,
        )
        states.append(state)
        sums.append(accumulated)
    pixel_size_A = halves.side_A / task.box
    resolution = progress.history[-1][2] if progress.history else np.inf
    options = mask_options(params) if resolution < params.mask_start_resolution_A else None
    join = round(halves.side_A / max(params.join_resolution_A, require(params, "initial_lowpass_A")[0]))
    maps = [to_numpy(half.solve(threads=context.threads)) for half in sums]
    shared: Shared = exchange(
        (maps[0], maps[1]),
        radius=task.reconstruct_radius,
        join_radius=join,
        pixel_size_A=pixel_size_A,
        mask_options=options,
        rng=context.rng(f"iteration {i} phases"),
        threads=context.threads,
    )
    references = [
        masked_reference(
            next_reference(own, half, shared, threads=context.threads),
            pixel_size_A=pixel_size_A,
            diameter_A=_diameter(params),
            mask_options=options,
            threads=context.threads,
        )
        for own, half in zip(maps, sums, strict=True)
    ]
    change = np.concatenate([s.ctf_change_A for s in states])
    row = [
        float(i + 1),
        float(task.radius),
        halves.side_A / max(shared.shell, 1.0),
        float(shared.masked),
        float(np.mean([s.angle_change_deg for s in states])),
        float(np.mean([s.confidence.mean() for s in states])),
        float(np.median(np.abs(change[:, 0]))),
        float(np.median(np.hypot(change[:, 1], change[:, 2]))),
    ]
    start = start_radius(halves, params)
    radius = next_search_radius(
        shared.fsc, searched=progress.radius, shared=start, largest=largest, growth=GROWTH
    ).radius
    resolvable_deg = float(np.degrees(halves.side_A / task.radius / _diameter(params)))
    # one iteration without gain can be the mask's or the defoci's first; two are the end
    best = max((old[1] for old in progress.history), default=0.0)
    gained = max(task.radius, radius) > (1 + LEAST_GAIN) * best
    settled = not gained and row[4] < SETTLED_ANGLE * resolvable_deg
    return Progress(
        i + 1,
        radius,
        (states[0], states[1]),
        (references[0], references[1]),
        [*progress.history, row],
        settled and i + 1 > params.global_iterations,
    )


def plan(progress: Progress, halves: Halves, params: RefineHomogeneous) -> Task:
    """Decide what the next iteration does."""
    i, images = progress.iteration, halves.images[0]
    to = reach(progress.radius, images.pixels.radius)
    resolution = progress.history[-1][2] if progress.history else np.inf
    often = i % RANDOM_SEARCH_EVERY == 0
    return Task(
        radius=progress.radius,
        reconstruct_radius=to,
        box=working_box(to, largest=images.box),
        search="all" if i < params.global_iterations else "weak",
        random_share=RANDOM_SEARCH_SHARE if often else 0.0,
        defocus=params.refine_defocus and resolution < params.defocus_start_resolution_A,
        grey=i == 0,
    )


def start_radius(halves: Halves, params: RefineHomogeneous) -> int:
    """Return the first iteration's radius, below which no later one goes."""
    return min(max(round(halves.side_A / require(params, "initial_lowpass_A")[0]), 4), halves.images[0].pixels.radius)


def finished(progress: Progress, params: RefineHomogeneous) -> bool:
    """Whether the last two iterations gained less than 2 % in resolution with poses at rest, or there were enough."""
    return progress.settled or progress.iteration >= params.max_iterations


def mask_options(params: RefineHomogeneous) -> dict[str, float]:
    """Return the options of :func:`cryopipe.reconstruction.dynamic_mask.dynamic_mask`."""
    return {
        "diameter_A": _diameter(params),
        "low_pass_A": params.mask_start_resolution_A,
        "threshold": params.mask_threshold,
        "near_A": params.mask_near_A,
        "far_A": max(params.mask_far_A, params.mask_near_A + 1.0),
    }


def final_halves(
    progress: Progress, halves: Halves, params: RefineHomogeneous, *, threads: int, gpu: bool = False
) -> list[NDArray[np.float32]]:
    """Reconstruct both halves from all frequencies of the full box: unfiltered and unmasked."""
    maps = []
    for images, parameters, state in zip(halves.images, halves.parameters, progress.states, strict=True):
        radius = images.pixels.radius
        sums = Reconstruction.empty(
            images.box, radius, symmetry=str(params.symmetry), expected_slices=len(images), gpu=gpu
        )
        posed = with_ctfs(images, parameters, state.ctf_change_A).scaled(state.scale)
        sums.insert(posed, state.rotations, state.shifts_px, 1 / state.sigma2)
        maps.append(to_numpy(sums.solve(threads=threads)))
    return maps


def _diameter(params: RefineHomogeneous) -> float:
    return float(require(params, "particle_diameter_A")[0])


def load_halves(table: StarTable, *, threads: int) -> Halves:
    """Read all particles at full radius and split them into half sets."""
    subset = half_sets_of(table)
    rows = [np.flatnonzero(subset == half) for half in (1, 2)]
    if min(map(len, rows)) < 4:
        raise InputError(f"{len(table)} particles are too few for two half sets; hundreds are sensible.")
    box = int(table.single("rlnImageSize"))
    # unmasked: at 2.4 Å a defocus of 1.8 µm carries detail 150 Å away, and a mask would cut it off (2.44 against 2.37 Å)
    images = load_particle_spectra(table, radius=box // 2 - 1, threads=threads)
    parameters = from_table(table.with_optics())
    # foreign tables may lack the column; only astigmatism asks for it
    micrographs = np.asarray(table.rows.get("rlnMicrographName", np.full(len(table), "")))
    return Halves(
        (images.subset(rows[0]), images.subset(rows[1])),
        (parameters.subset(rows[0]), parameters.subset(rows[1])),
        (micrographs[rows[0]], micrographs[rows[1]]),
        (rows[0], rows[1]),
    )


def with_poses(table: StarTable, halves: Halves, progress: Progress, params: RefineHomogeneous) -> StarTable:
    """Return the table with poses in the asymmetric unit, half sets, refined defoci, scales and likelihoods."""
    rows = table.rows.copy()
    n = len(rows)
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
    values = {
        name: np.zeros(n) for name in (*names, "rlnLogLikeliContribution", "rlnMaxValueProbDistribution", "crpScale")
    }
    subset = np.zeros(n, dtype=np.int64)
    ctfs = {name: rows[name].to_numpy(dtype=np.float64).copy() for name in CTF_COLUMNS}
    for number, (state, where) in enumerate(zip(progress.states, halves.rows, strict=True), start=1):
        angles = matrix_to_euler(reduce_to_asymmetric_unit(state.rotations, str(params.symmetry)))
        shifts_A = state.shifts_px * halves.images[0].pixel_size_A
        columns = (*angles.T, *shifts_A.T, state.log_likelihood, state.confidence, state.scale)
        for name, column in zip(values, columns, strict=True):
            values[name][where] = column
        subset[where] = number
        changed = changed_parameters(halves.parameters[number - 1], needed_columns(state.ctf_change_A))
        found = (changed.defocus_u_A, changed.defocus_v_A, changed.defocus_angle_deg)
        for name, column in zip(CTF_COLUMNS, found, strict=True):
            ctfs[name][where] = column
    return table.with_rows(rows.assign(**values, **ctfs, rlnRandomSubset=subset))


def write_fsc(path: Path, curves: MaskedFsc, *, box: int, pixel_size_A: float) -> None:
    """Write the four curves by shell and the resolutions read off them."""
    index = np.arange(len(curves.unmasked))
    frequency = index / (box * pixel_size_A)
    frame = pd.DataFrame(
        {
            "rlnSpectralIndex": index,
            "rlnResolution": frequency,
            "rlnAngstromResolution": np.where(index > 0, 1 / np.maximum(frequency, 1e-9), 999.0),
            "rlnFourierShellCorrelationCorrected": curves.corrected,
            "rlnFourierShellCorrelationUnmaskedMaps": curves.unmasked,
            "rlnFourierShellCorrelationMaskedMaps": curves.masked,
            "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": curves.randomised,
        }
    )
    general = {
        "crpResolutionUnmasked": float(resolution_at(curves.unmasked, THRESHOLD, box, pixel_size_A)),
        "crpResolutionMasked": float(resolution_at(curves.masked, THRESHOLD, box, pixel_size_A)),
        "rlnFinalResolution": float(resolution_at(curves.corrected, THRESHOLD, box, pixel_size_A)),
    }
    write_blocks(path, {"general": general, "fsc": frame})


def main(inputs: Mapping[str, Any], outputs: Mapping[str, Path], params: RefineHomogeneous, context: Context) -> None:
    """Read particles and an initial map; write unfiltered halves, the filtered map, mask, FSC, poses and history."""
    table = read_table(inputs["particles"], "particles")
    if len(table) == 0:
        raise InputError(f"{inputs['particles']}: no particles in it; look at what the steps before rejected.")
    if params.refine_astigmatism and "rlnMicrographName" not in table.rows:
        raise InputError(
            f"{inputs['particles']}: refine_astigmatism needs rlnMicrographName, which the table lacks: switch it off or add it."
        )
    table = table.with_rows(table.rows.iloc[canonical_order(table.rows)])
    halves = load_halves(table, threads=context.threads)
    images = halves.images[0]
    initial, pixel_size_A = read_volume(inputs["map"])
    if initial.shape != (images.box,) * 3 or abs((pixel_size_A or 0) / images.pixel_size_A - 1) > 1e-3:
        raise InputError(
            f"{inputs['map']}: {initial.shape} at {pixel_size_A or 0:.5g} Å, but particles have box {images.box} at "
            f"{images.pixel_size_A:g} Å. Resize the map (resize_volume)."
        )
    # the largest need, known before hours of work that would end in it
    check_memory(images.box, images.pixels.radius, padding=2, interpolated=False, gpu=bool(context.gpus))
    progress = refine(halves, initial, params, context)
    half1, half2 = final_halves(progress, halves, params, threads=context.threads, gpu=bool(context.gpus))
    mask = dynamic_mask(0.5 * (half1 + half2), images.pixel_size_A, workers=context.threads, **mask_options(params))
    curves = masked_fsc(half1, half2, mask, context.rng("final phases"), workers=context.threads)
    weight = fsc_weight(curves.corrected) ** 2
    for name, volume in (
        ("half1", half1),
        ("half2", half2),
        ("map", apply_shell_curve(0.5 * (half1 + half2), weight, workers=context.threads)),
        ("mask", mask),
    ):
        write_volume(outputs[name], volume, images.pixel_size_A)
    write_table(outputs["particles"], with_poses(table, halves, progress, params))
    write_fsc(outputs["fsc"], curves, box=images.box, pixel_size_A=images.pixel_size_A)
    lines = ["\t".join(HISTORY), *("\t".join(f"{value:.6g}" for value in row) for row in progress.history)]
    atomic_write(outputs["history"], "\n".join(lines) + "\n")
