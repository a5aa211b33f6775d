"""Step ``classify_2d``: class averages by expectation maximisation over class, in-plane angle and shift, as in cryoSPARC.

The model is that of Scheres et al. 2005 (doi:10.1016/j.jmb.2005.02.031) with the CTF and coloured noise of RELION (Scheres
2012, doi:10.1016/j.jsb.2012.09.006): X = C · S_t · R_ψ A_c + n. Matrix products compare an image with all states
(`cryopipe.search`). Annealing spreads early assignments over many states. The resolution grows from coarse to fine. An FRC of
pseudo-halves regularises each class. Empty classes get new particles. Averages are centred, and the origins of their particles
with them. Particles come in blocks from a store. All of them are used in every iteration, because below some 200 particles
per class mini-batches save nothing.

Known limits: There are no mirrored classes (opposite views are different classes), and one noise spectrum is used for all
optics groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import xlogy

from cryopipe.classes2d.expectation import Expectation, expectation
from cryopipe.classes2d.maximisation import maximisation
from cryopipe.classes2d.particle_stack import ParticleStack, open_particle_stack
from cryopipe.classes2d.schedule import Stage, class_count, make_schedule
from cryopipe.classes2d.state import ClassificationState, class_resolutions, starting_state
from cryopipe.classes2d.tables import class_table, classified_table, posterior_table
from cryopipe.config.classes2d import Classify2d
from cryopipe.config.declaration.base import require
from cryopipe.context import Context
from cryopipe.imaging.masks import soft_circle
from cryopipe.io.mrc import write_stack
from cryopipe.io.star import StarTable, concatenate, read_table, write_blocks, write_table
from cryopipe.iteration.checkpoint import Checkpoint, run_fingerprint
from cryopipe.iteration.history import write_history
from cryopipe.projection.particle_keys import canonical_order


@dataclass(frozen=True)
class Iteration:
    """Figures of one iteration: one row of the history."""

    iteration: float
    resolution_A: float
    angles: float
    shift_range_A: float
    inverse_temperature: float
    log_evidence: float
    mean_max_probability: float
    class_entropy: float
    changed_class: float
    median_class_resolution_A: float


@dataclass(frozen=True, eq=False)
class Progress:
    """The classification after ``done`` iterations. Its checkpoint holds this state."""

    state: ClassificationState
    done: int
    history: list[Iteration]


def classify(
    stack: ParticleStack, params: Classify2d, context: Context, *, fingerprint: str
) -> tuple[ClassificationState, Expectation, list[Iteration]]:
    """Run all iterations and the final pass, from the last checkpoint if there is one.

    Parameters
    ----------
    stack : ParticleStack
        Particles in canonical order.
    params : Classify2d
        Parameters with all derived values.
    context : Context
        Random numbers, threads, device, folder of the checkpoint.
    fingerprint : str
        Fingerprint of everything that determines the result. A checkpoint with another one is ignored.

    Returns
    -------
    state, found, history : ClassificationState, Expectation, list of Iteration
        Final averages, posterior of the final pass (about the averages before it) and one row per iteration.
    """
    diameter_A, offset_A = require(params, "particle_diameter_A", "offset_range_A")
    store, threads = stack.store, context.threads
    radius_px = 0.5 * params.mask_diameter_factor * diameter_A / store.pixel_size_A
    mask = soft_circle(store.box, radius_px, edge_px=max(2.0, 0.04 * store.box))
    stages = make_schedule(params, diameter_A, offset_A)
    checkpoint = Checkpoint(context.work_dir / "classification.npz", Progress, fingerprint)
    kept = checkpoint.load()
    if kept is None:
        classes = class_count(len(store), params.classes)
        kept = Progress(starting_state(stack, classes, params, context.rng("start"), mask), 0, [])
    else:
        context.log.info("going on after iteration %d", kept.done)
    state, history = kept.state, kept.history
    found: Expectation | None = None
    for i in range(min(kept.done, len(stages) - 1), len(stages)):
        stage = stages[i]
        found = None  # frees the memory of the last result before the next one is made
        # during annealing the grid is turned at random, so that no angle is favoured; later it is fixed, for convergence
        offset = float(context.rng(f"iteration {i}").uniform(0, 360.0 / stage.n_psi)) if stage.spread else 0.0
        found = expectation(stack, state, stage, psi_offset_deg=offset, threads=threads, on_gpu=context.device == "gpu")
        new = maximisation(stack, state, stage, found, params, mask=mask, threads=threads)
        history = [*history, _remembered(i, stage, state, new, found, store.side_A)]
        state = new
        if i < len(stages) - 1:
            checkpoint.save(Progress(state, i + 1, history))
        context.progress(i + 1, len(stages), "iterations")
    if found is None:
        raise RuntimeError("the schedule has no iteration")
    return state, found, history


def _remembered(
    i: int, stage: Stage, old: ClassificationState, new: ClassificationState, found: Expectation, box_A: float
) -> Iteration:
    share = found.reference_probability.mean(axis=0)
    return Iteration(
        iteration=float(i + 1),
        resolution_A=stage.resolution_A,
        angles=float(stage.n_psi),
        shift_range_A=stage.shift_range_A,
        inverse_temperature=found.inverse_temperature,
        log_evidence=float(found.log_evidence.sum()),
        mean_max_probability=float(found.max_probability.mean()),
        class_entropy=float(-xlogy(share, share).sum()),
        changed_class=float(np.mean(old.best_class != new.best_class)),
        median_class_resolution_A=float(np.median(class_resolutions(new, box_A))),
    )


def full_size(averages: np.ndarray, box: int) -> np.ndarray:
    """Return averages ``[n, b, b]`` with zeros around them up to ``box``."""
    result = np.zeros((len(averages), box, box), dtype=np.float32)
    low = box // 2 - averages.shape[-1] // 2
    result[:, low : low + averages.shape[-1], low : low + averages.shape[-1]] = averages
    return result


def main(inputs: dict[str, Any], outputs: dict[str, Path], params: Classify2d, context: Context) -> None:
    """Classify the particles of all tables together.

    Inputs: ``particles`` (one table or several). Outputs: ``classes`` (MRC stack), ``particles`` and ``model`` (STAR) and
    ``history`` (TSV).
    """
    table = _sorted_particles(_as_list(inputs["particles"]))
    diameter_A, offset_A = require(params, "particle_diameter_A", "offset_range_A")
    stack = open_particle_stack(
        table,
        max_resolution_A=params.max_resolution_A,
        mask_diameter_A=params.mask_diameter_factor * diameter_A,
        memory_bytes=context.memory_bytes,
        threads=context.threads,
    )
    state, found, history = classify(stack, params, context, fingerprint=run_fingerprint(context, params, table))
    stage, pixel_size_A = make_schedule(params, diameter_A, offset_A)[-1], stack.store.pixel_size_A
    order = np.argsort(-np.bincount(state.best_class, minlength=state.classes), kind="stable")
    write_stack(outputs["classes"], full_size(state.averages[order], stack.full_box), pixel_size_A)
    write_table(outputs["particles"], classified_table(table, stack, state, found, stage, order))
    general = {
        "rlnReferenceDimensionality": 2,
        "rlnNrClasses": len(order),
        "rlnPixelSize": pixel_size_A,
        "rlnOriginalImageSize": stack.full_box,
    }
    blocks: dict[str, Any] = {
        "model_general": general,
        "model_classes": class_table(state, stack, outputs["classes"], order),
        "class_posteriors": posterior_table(found.reference_probability, order),
    }
    write_blocks(outputs["model"], blocks)
    write_history(outputs["history"], Iteration, history)
    Checkpoint(context.work_dir / "classification.npz", Progress, "").remove()
    context.log.info("%d particles in %d classes", len(table), len(order))


def _sorted_particles(paths: list[Path]) -> StarTable:
    """Return the particles of all tables in canonical order."""
    table = concatenate(read_table(path, "particles") for path in paths)
    return table.with_rows(table.rows.iloc[canonical_order(table.rows)])


def _as_list(paths: Any) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
