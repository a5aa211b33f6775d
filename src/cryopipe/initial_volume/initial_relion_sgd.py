"""Step ``initial_relion_sgd``: an initial map by stochastic gradient descent with momentum, as in RELION 3.1.

One iteration takes a mini-batch, spreads every particle over all poses (expectation), makes a map of the mini-batch and
moves the current map V towards it: ``dV <- mu dV + (1 - mu) step (V_batch - V)``, ``V <- V + dV``. Resolution and batch
size grow linearly between an initial and a final phase. As in RELION the start is the reconstruction of the first
particles in random orientations, and noise spectra are running averages with the same mu. RELION's mu = 0.9 and
step = 0.5 are for 300 small mini-batches. The defaults here (0.5 and 1 for 30 larger ones) take a tenth of the time.

With a hollow, highly symmetric shell the descent can be trapped in a map with the right radial profile but wrong
orientations. Several differences from RELION 3.1 prevent this. The map of the mini-batch is regularised by a share of the mean
weight of each shell, because a prior from the power of the current map would suppress just those shells that determine the
orientations. Resolutions go from 15 to 10 Å. The mask of the map is tight, but that of the images is so wide that it includes
what the CTF delocalises. Negative density is not removed. And several seeds compete by the likelihood of particles that none
has used. They run one after the other until two have found the same map.

Orientations are searched in the asymmetric unit only. Shifts are searched about the centres in the table. Their range follows
from the distances from these centres that the last iteration found. The steps of both grids follow from the resolution.
Annealing and RELION's removal of negative density in the first phase are options.

Sources: Punjani et al. 2017 (doi:10.1038/nmeth.4169) for the method, RELION 3.1 (Zivanov et al. 2018,
doi:10.7554/eLife.42166; ``ml_optimiser.cpp``) for schedule and update. Known limits: There is one class. The hand is not
determined, and in C1 the frame of the map is arbitrary. With a hollow shell half or more of the seeds end in the trap. The
step warns if no two seeds agree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopipe.config.declaration.base import require
from cryopipe.config.initial_volume import InitialRelionSgd
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.imaging.symmetry import symmetrise_volume
from cryopipe.initial_volume.agreement import agreement
from cryopipe.initial_volume.contest import Standing, goes_on, message, standing
from cryopipe.initial_volume.descent import Batch, DescentState, Setting, Step, iterate, start_state
from cryopipe.initial_volume.evidence import expectation, image_power, scores
from cryopipe.initial_volume.schedule import draw_batch, schedule
from cryopipe.io.atomic import atomic_write
from cryopipe.io.mrc import image_size, parse_image_name, write_volume
from cryopipe.io.star import StarTable, read_table, write_table
from cryopipe.iteration.checkpoint import Checkpoint, run_fingerprint
from cryopipe.iteration.history import write_history
from cryopipe.iteration.particle_store import ParticleStore
from cryopipe.iteration.pose_table import with_poses
from cryopipe.projection.particle_keys import canonical_order, particle_keys
from cryopipe.projection.working_box import resize_map
from cryopipe.search.grid import orientation_grid


def run_seed(
    training: ParticleStore,
    setting: Setting,
    context: Context,
    *,
    seed: int,
    sigma2: NDArray[np.float64],
    fingerprint: str,
) -> DescentState:
    """Carry one seed through its schedule, from its checkpoint if there is one.

    Parameters
    ----------
    training : ParticleStore
        The particles from which mini-batches are drawn.
    setting : Setting
        Point group, mask and grid of shifts.
    context : Context
        Random numbers, folder of the checkpoint.
    seed : int
        Number of the run.
    sigma2 : array [shells]
        Noise spectrum at the start.
    fingerprint : str
        Fingerprint of everything that determines the result.

    Returns
    -------
    DescentState
        State after the last iteration.
    """
    side_A, count = training.side_A, len(training)
    plans = schedule(setting.params, particles=count, side_A=side_A, largest_radius=training.radius)
    checkpoint = Checkpoint(context.work_dir / f"seed_{seed}.npz", DescentState, fingerprint)
    state = checkpoint.load()
    if state is None:
        state = start_state(training, setting, plans[0], context.rng(f"seed {seed} start"), sigma2=sigma2)
    while state.iteration < len(plans):
        i = state.iteration
        plan = plans[i]
        epochs = range(plan.start // count, (plan.start + plan.batch - 1) // count + 1)
        order = {e: context.rng(f"seed {seed} epoch {e}").permutation(count) for e in epochs}
        batch = Batch.of(training, draw_batch(plan, order, count), plan.radius, setting)
        state, numbers = iterate(state, batch, plan, setting, context.rng(f"seed {seed} iteration {i}"))
        row = Step(seed, i + 1, side_A / plan.radius, len(batch), **numbers, held_out=np.nan)
        state = replace(state, history=[*state.history, row])
        checkpoint.save(state)
        context.progress(i + 1, len(plans), f"iterations of seed {seed}")
    return state


def split_particles(keys: list[str], *, held_out: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows for training, and held-out rows: those with the smallest hash, at most a fifth of all."""
    count = min(held_out, len(keys) // 5)
    if count < 2 or len(keys) < 20:
        raise InputError(
            f"{len(keys)} particles are too few for an initial model. Give at least 20, or better some hundreds."
        )
    order = np.argsort([hashlib.sha256(key.encode()).hexdigest() for key in keys], kind="stable")
    return np.sort(order[count:]), np.sort(order[:count])


def open_particles(table: StarTable, params: InitialRelionSgd, context: Context) -> ParticleStore:
    """Return a store of soft-masked particles, used up to the final resolution."""
    diameter, final_A = require(params, "particle_diameter_A", "final_resolution_A")
    size = int(image_size(parse_image_name(table.rows["rlnImageName"].iloc[0])[1]).shape[-1])
    side_A = size * table.single("rlnImagePixelSize")
    return ParticleStore.open(
        table,
        radius=min(round(side_A / final_A), size // 2 - 1),
        mask_diameter_A=min(params.image_mask_diameter_factor * diameter, 0.95 * side_A),
        memory_bytes=context.memory_bytes,
        threads=context.threads,
    )


@dataclass(frozen=True, eq=False)
class Outcome:
    """Results of all seeds. Run i is that of seed i + 1.

    Attributes
    ----------
    runs : list of DescentState
    evidence : list of float
        Mean log evidence per held-out particle.
    with_best : array float64 [runs]
        Agreement of each map with the best map. For the best map itself it is NaN.
    standing : Standing
    """

    runs: list[DescentState]
    evidence: list[float]
    with_best: NDArray[np.float64]
    standing: Standing

    @property
    def best(self) -> DescentState:
        """The run whose map is used further."""
        return self.runs[self.standing.best]


def compete(
    training: ParticleStore, held_out: ParticleStore, setting: Setting, context: Context, *, fingerprint: str
) -> Outcome:
    """Run one seed after the other until two find the same map, one is clearly best, or the limit is reached.

    Parameters
    ----------
    training, held_out : ParticleStore
        The particles from which runs make their maps, and the particles by which runs are compared.
    setting : Setting
        Point group, mask and range of shifts.
    context : Context
        Random numbers, log, folder of the checkpoints.
    fingerprint : str
        Fingerprint of everything that determines the result.
    """
    params, sigma2 = setting.params, image_power(training)
    limits = {"seeds": params.seeds, "max_seeds": max(params.max_seeds, params.seeds)}
    compared: dict[tuple[int, int], float] = {}

    def alike(i: int, j: int) -> float:
        pair = (min(i, j), max(i, j))
        if i != j and pair not in compared:
            compared[pair] = agreement(
                runs[pair[0]].volume,
                runs[pair[1]].volume,
                pixel_size_A=setting.pixel_size_A,
                resolution_A=training.side_A / training.radius,
                symmetry=setting.symmetry,
                threads=setting.threads,
            )
        return compared.get(pair, np.nan)

    runs: list[DescentState] = []
    evidence: list[float] = []
    while True:
        seed = len(runs) + 1
        runs.append(run_seed(training, setting, context, seed=seed, sigma2=sigma2, fingerprint=fingerprint))
        evidence.append(float(scores(held_out, runs[-1], setting).mean()))
        context.log.info("seed %d: held-out log evidence %.3f", seed, evidence[-1])
        best = int(np.argmax(evidence))
        with_best = np.array([alike(best, i) for i in range(seed)])
        found = standing(np.array(evidence), with_best)
        if not goes_on(found.verdict, seed, **limits):
            return Outcome(runs, evidence, with_best, found)


def report_contest(outcome: Outcome, path: Path, context: Context) -> None:
    """Write how the contest ended to the log and to a JSON file."""
    text, warn = message(outcome.standing, len(outcome.runs), outcome.with_best)
    (context.log.warning if warn else context.log.info)("%s", text)
    rows = [
        {"seed": i + 1, "held_out": round(value, 4), "agreement": None if np.isnan(alike) else round(float(alike), 4)}
        for i, (value, alike) in enumerate(zip(outcome.evidence, outcome.with_best, strict=True))
    ]
    numbers = {
        "verdict": outcome.standing.verdict,
        "best": outcome.standing.best + 1,
        "message": text,
        "warning": warn,
        "seeds": rows,
    }
    atomic_write(path, json.dumps(numbers, indent=1) + "\n")


def main(inputs: Mapping[str, Any], outputs: Mapping[str, Path], params: InitialRelionSgd, context: Context) -> None:
    """Make an initial map.

    Inputs: ``particles`` (STAR). Outputs: ``map`` (MRC, of the best seed, with box and pixel size of the particles),
    ``particles`` (STAR, with poses), ``history`` (TSV, of all seeds) and ``seeds`` (JSON, comparison of the seeds).
    """
    table = read_table(inputs["particles"], "particles")
    table = table.with_rows(table.rows.iloc[canonical_order(table.rows)])
    training_rows, held_out_rows = split_particles(particle_keys(table.rows), held_out=params.held_out)
    store = open_particles(table, params, context)
    setting = Setting.of_store(store, params, threads=context.threads)
    fingerprint = run_fingerprint(context, params, table)
    outcome = compete(
        store.subset(training_rows), store.subset(held_out_rows), setting, context, fingerprint=fingerprint
    )
    report_contest(outcome, outputs["seeds"], context)
    state = outcome.best
    found = expectation(store, state, setting, candidates=1)
    volume = symmetrise_volume(resize_map(state.volume, store.box, threads=context.threads), setting.symmetry)
    write_volume(outputs["map"], volume, table.single("rlnImagePixelSize"))
    posed = with_poses(
        table,
        orientation_grid(setting.healpix_order, setting.symmetry)[found.best_state],
        found.shift_px,
        symmetry=setting.symmetry,
        pixel_size_A=setting.pixel_size_A,
        rlnMaxValueProbDistribution=found.max_probability,
    )
    write_table(outputs["particles"], posed)
    pairs = zip(outcome.evidence, outcome.runs, strict=True)
    rows = [replace(row, held_out=evidence) for evidence, run in pairs for row in run.history]
    write_history(outputs["history"], Step, rows)
