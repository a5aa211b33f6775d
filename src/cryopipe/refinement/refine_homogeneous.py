"""Gold-standard refinement of one structure: two independent half sets, frequency marching, continuous poses.

In every iteration each half searches its particles: at first all of them globally, later those whose pose is ambiguous.
It refines poses continuously at the resolution reached, estimates the noise again (on request also grey scales and
defoci), and reconstructs. The halves then share an FSC curve and their shells coarser than ``join_resolution_A``. The
curve filters the next references and determines how far in frequency the next iteration goes. The last reconstruction
uses all frequencies of the full box. Images come in blocks from a particle store, so memory does not grow with their
number.

Sources: Scheres & Chen 2012 (doi:10.1038/nmeth.2115) for independent halves, Scheres 2012
(doi:10.1016/j.jsb.2012.09.006) for the Wiener-filtered references, Punjani et al. 2017 (doi:10.1038/nmeth.4169) and
Grigorieff 2007 (doi:10.1016/j.jsb.2006.05.004) for frequency marching and continuous poses. Known limits: one
structure, no local filter, no higher aberrations. Each particle has a single pose, and its confidence is a weight in
the global iterations only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopipe.config.declaration.base import require
from cryopipe.config.refinement import RefineHomogeneous
from cryopipe.context import Context
from cryopipe.iteration.checkpoint import Checkpoint, run_fingerprint
from cryopipe.iteration.exchange import compare
from cryopipe.iteration.gold_standard import Pair, advance_pair, final_halves, reach, start_pair
from cryopipe.iteration.half_set_state import Task
from cryopipe.iteration.halves import Halves, load_halves
from cryopipe.iteration.improver import LOW_CONFIDENCE
from cryopipe.iteration.next_radius import next_search_radius
from cryopipe.projection.working_box import working_box
from cryopipe.reconstruction.memory import check_memory
from cryopipe.refinement.files import read_initial_map, read_particles, write_maps, write_poses
from cryopipe.refinement.options import diameter_A, exchange_options, half_set_options, mask_options
from cryopipe.refinement.progress import Iteration, Progress
from cryopipe.refinement.support import unsupported

#: largest factor by which the radius grows in one iteration
GROWTH = 1.4
#: a refinement has converged when two iterations in a row gain less than this share of the best previous radius
LEAST_GAIN = 0.02
#: ... and when its poses move by less than this share of the angle that moves the rim of the particle by one resolution element
SETTLED_ANGLE = 0.25


def refine(
    halves: Halves,
    initial: NDArray[np.float32],
    params: RefineHomogeneous,
    context: Context,
    *,
    fingerprint: str,
    exchange: Any = compare,
) -> Progress:
    """Iterate to convergence, from the checkpoint if there is one.

    Parameters
    ----------
    halves : Halves
        Particles at full size.
    initial : array float32 [z, y, x]
        Initial map with the box and pixel size of the images, and with any grey scale.
    params : RefineHomogeneous
        Options.
    context : Context
        Random numbers, threads, folder of the checkpoint.
    fingerprint : str
        Fingerprint of everything that determines the result.
    exchange : callable
        :func:`cryopipe.iteration.exchange.compare`, or a replacement that tests what the halves exchange.

    Returns
    -------
    Progress
        Poses, noise and history. The final maps come from :func:`cryopipe.iteration.gold_standard.final_halves`.
    """
    checkpoint = Checkpoint(context.work_dir / "progress.npz", Progress, fingerprint)
    progress = checkpoint.load()
    if progress is None:
        lowpass, diameter = require(params, "initial_lowpass_A", "particle_diameter_A")
        radius = start_radius(halves, params)
        pair = start_pair(halves, initial, radius=radius, lowpass_A=lowpass, diameter_A=diameter)
        progress = Progress(0, radius, pair, [], False, 0)
    while not finished(progress, params):
        progress = iterate(progress, halves, params, context, exchange=exchange)
        checkpoint.save(progress)
        last = progress.history[-1]
        context.log.info(
            "iteration %d: to shell %d, FSC 0.143 at %.2f A, poses move by %.2f deg",
            last.iteration,
            last.radius,
            last.fsc143_A,
            last.median_angle_change_deg,
        )
        context.progress(progress.iteration, params.max_iterations, "iterations, at most")
    return progress


def iterate(
    progress: Progress, halves: Halves, params: RefineHomogeneous, context: Context, *, exchange: Any = compare
) -> Progress:
    """Advance both halves by one iteration, and determine the radius of the next one.

    Parameters
    ----------
    progress : Progress
        Not modified.
    halves, params, context, exchange
        As for :func:`refine`.
    """
    done, store = progress.iteration + 1, halves.store
    pair, shared = advance_pair(
        progress.pair,
        halves,
        plan(progress, halves, params),
        half_set_options(params, review=reviews(progress)),
        exchange_options(params),
        context,
        name=f"iteration {progress.iteration}",
        resolution_A=progress.resolution_A,
        exchange=exchange,
    )
    change, start = pair.ctf_change_A, start_radius(halves, params)
    row = Iteration(
        iteration=float(done),
        radius=float(progress.radius),
        fsc143_A=store.side_A / max(shared.shell, 1.0),
        masked=float(shared.masked),
        median_angle_change_deg=float(np.mean([state.angle_change_deg for state in pair.states])),
        mean_confidence=float(np.mean([state.poses.confidence.mean() for state in pair.states])),
        median_defocus_change_A=float(np.median(np.abs(change[:, 0]))),
        median_astigmatism_change_A=float(np.median(np.hypot(change[:, 1], change[:, 2]))),
        **mean_priors(pair),
        start_A=store.side_A / start,
    )
    radius = next_search_radius(
        shared.fsc, searched=progress.radius, shared=start, largest=store.radius, growth=GROWTH
    ).radius
    resolvable_deg = float(np.degrees(store.side_A / progress.radius / diameter_A(params)))
    # one iteration without gain may be the first with a mask or with defoci, so two in a row are needed
    best = max((old.radius for old in progress.history), default=0.0)
    gained = max(progress.radius, radius) > (1 + LEAST_GAIN) * best
    settled = not gained and row.median_angle_change_deg < SETTLED_ANGLE * resolvable_deg
    settled = settled and done > params.global_iterations
    reviewed = done if reviews(progress) else progress.reviewed
    return Progress(done, radius, pair, [*progress.history, row], settled, reviewed)


def mean_priors(pair: Pair) -> dict[str, float]:
    """Return the estimated widths of the priors, each as the mean of both halves."""
    first, second = (asdict(state.priors) for state in pair.states)
    names = {"defocus_A": "defocus_prior_A", "defocus_of_micrographs_A": "micrograph_defocus_prior_A"}
    names |= {"astigmatism_A": "astigmatism_prior_A", "scale": "scale_prior"}
    names |= {"scale_of_micrographs": "micrograph_scale_prior"}
    return {name: 0.5 * (first[field] + second[field]) for field, name in names.items()}


def plan(progress: Progress, halves: Halves, params: RefineHomogeneous) -> Task:
    """Return the task of the next iteration."""
    i, store = progress.iteration, halves.store
    to = reach(progress.radius, store.radius)
    return Task(
        radius=progress.radius,
        reconstruct_radius=to,
        box=working_box(to, largest=store.box),
        search="all" if i < params.global_iterations else "weak",
        random_share=1.0 if reviews(progress) else 0.0,
        defocus=params.refine_defocus and progress.resolution_A < params.defocus_start_resolution_A,
        grey=i == 0,
        own_nats=progress.pair.own_nats,
    )


def start_radius(halves: Halves, params: RefineHomogeneous) -> int:
    """Return the radius of the first iteration. It is the smallest of all iterations."""
    store = halves.store
    return min(max(round(store.side_A / require(params, "initial_lowpass_A")[0]), 4), store.radius)


def reviews(progress: Progress) -> bool:
    """Return whether the next iteration searches all particles again: the first one after poses no longer change."""
    return progress.settled and progress.reviewed == 0


def finished(progress: Progress, params: RefineHomogeneous) -> bool:
    """Return whether all iterations are done, or resolution and poses no longer change after a new search of all particles."""
    return (progress.settled and progress.reviewed > 0) or progress.iteration >= params.max_iterations


def warn_of(progress: Progress, context: Context) -> None:
    """Log the number of uncertain poses, and a warning if the half maps do not support the map."""
    last, confidence = progress.history[-1], np.concatenate([state.poses.confidence for state in progress.pair.states])
    unsure = int((confidence < LOW_CONFIDENCE).sum())
    context.log.info("%d of %d poses have a confidence below %g", unsure, len(confidence), LOW_CONFIDENCE)
    reason = unsupported(last.fsc143_A, last.start_A)
    if reason:
        context.log.warning("%s", reason)


def main(inputs: Mapping[str, Any], outputs: Mapping[str, Path], params: RefineHomogeneous, context: Context) -> None:
    """Refine one structure.

    Inputs: ``particles`` (STAR) and ``map`` (MRC). Outputs: ``half1`` and ``half2`` (MRC, unfiltered), ``map`` (MRC,
    filtered), ``mask`` (MRC), ``fsc`` and ``particles`` (STAR) and ``history`` (TSV).
    """
    table = read_particles(Path(inputs["particles"]))
    halves = load_halves(table, memory_bytes=context.memory_bytes, threads=context.threads)
    if halves.first.micrographs is None:
        context.log.info(
            "%s: the column rlnMicrographName is missing. Each defocus is refined alone, and astigmatism is not refined.",
            inputs["particles"],
        )
    store, symmetry, gpu = halves.store, str(params.symmetry), bool(context.gpus)
    initial = read_initial_map(Path(inputs["map"]), store)
    # check the largest need of memory first, not after hours of work
    check_memory(store.box, store.radius, padding=2, interpolated=False, gpu=gpu)
    fingerprint = run_fingerprint(context, params, table, files=[inputs["map"]])
    progress = refine(halves, initial, params, context, fingerprint=fingerprint)
    warn_of(progress, context)
    maps = final_halves(progress.pair, halves, symmetry=symmetry, threads=context.threads, gpu=gpu)
    write_maps(outputs, maps, mask_options(params), context, pixel_size_A=store.pixel_size_A)
    write_poses(outputs, table, halves, progress, symmetry)
