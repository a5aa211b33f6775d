"""Class averages by expectation maximisation, soft over class, in-plane angle and shift (for cryoSPARC's 2D classes).

The model is Scheres et al. 2005 (doi 10.1016/j.jmb.2005.02.031) with the CTF and coloured noise of RELION (Scheres
2012, doi 10.1016/j.jsb.2012.09.006): X = C · S_t · R_ψ A_c + n. All states of an image are compared by matrix products
(`cryopipe.search`). Annealing keeps early iterations undecided, resolution marches from coarse to fine, an FRC of
pseudo-halves regularises each class, empty classes are revived, averages are centred with their particles' origins.
All particles take part in every iteration: below some 200 particles a class there is nothing to gain from mini-batches.

Known limits: no mirrors (opposite views are different classes), one noise spectrum for all optics groups.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import xlogy

from cryopipe.classes2d.checkpoint import load_state, remove_state, save_state
from cryopipe.classes2d.maximisation import (
    Expectation,
    State,
    class_resolutions,
    expectation,
    maximisation,
    starting_state,
)
from cryopipe.classes2d.particle_stack import ParticleStack, load_particle_stack
from cryopipe.classes2d.precision import class_precision
from cryopipe.classes2d.schedule import Stage, class_count, make_schedule
from cryopipe.config.base import require
from cryopipe.config.classes2d import Classify2d
from cryopipe.context import Context
from cryopipe.fingerprint import fingerprint
from cryopipe.imaging.geometry import matrix_to_euler
from cryopipe.imaging.masks import soft_circle
from cryopipe.io.atomic import atomic_write
from cryopipe.io.mrc import format_image_name, parse_image_name, write_stack
from cryopipe.io.star import StarTable, concatenate, read_table, write_blocks, write_table
from cryopipe.projection.particle_keys import canonical_order

HISTORY = (
    "iteration", "resolution_A", "angles", "shift_range_A", "inverse_temperature", "log_evidence",
    "mean_max_probability", "class_entropy", "changed_class", "median_class_resolution_A",
)  # fmt: skip


def classify(
    stack: ParticleStack, params: Classify2d, context: Context, *, stamp: str
) -> tuple[State, Expectation, list[dict[str, float]]]:
    """Run all iterations and the final pass, from the last checkpoint if there is one.

    Parameters
    ----------
    stack : ParticleStack
        Particles in canonical order.
    params : Classify2d
        With all derived values.
    stamp : str
        Of everything that determines the result; a checkpoint with another one is ignored.

    Returns
    -------
    state, found, history : State, Expectation, list of dict
        Final averages, posterior of the final pass (about the averages before it) and a row an iteration.
    """
    diameter_A, offset_A = require(params, "particle_diameter_A", "offset_range_A")
    spectra = stack.spectra
    classes = class_count(len(spectra), params.classes)
    mask = soft_circle(
        spectra.box,
        0.5 * params.mask_diameter_factor * diameter_A / spectra.pixel_size_A,
        edge_px=max(2.0, 0.04 * spectra.box),
    )
    stages = make_schedule(params, diameter_A, offset_A)
    history: list[dict[str, float]] = []
    kept = load_state(context.work_dir, stamp)
    if kept is None:
        state = starting_state(spectra, stack.prior_shift_px, classes, params, context.rng("start"), mask)
        done = 0
    else:
        state, done, history = kept
        context.log.info("going on after iteration %d", done)
    found: Expectation | None = None
    for i in range(min(done, len(stages) - 1), len(stages)):
        stage = stages[i]
        # while annealing, no angle is favoured; later a fixed grid lets the likelihood converge
        offset = float(context.rng(f"iteration {i}").uniform(0, 360.0 / stage.n_psi)) if stage.spread else 0.0
        found = expectation(
            spectra,
            stack.prior_shift_px,
            state,
            stage,
            psi_offset_deg=offset,
            threads=context.threads,
            on_gpu=context.device == "gpu",
        )
        new = maximisation(
            spectra, stack.prior_shift_px, state, stage, found, params, mask=mask, threads=context.threads
        )
        history.append(_history_row(i, stage, state, new, found, spectra.box * spectra.pixel_size_A))
        state = new
        if i < len(stages) - 1:
            save_state(context.work_dir, stamp, state, i + 1, history)
        context.progress(i + 1, len(stages), "iterations")
    if found is None:
        raise RuntimeError("the schedule has no iteration")
    return state, found, history


def _history_row(i: int, stage: Stage, old: State, new: State, found: Expectation, box_A: float) -> dict[str, float]:
    share = found.gather("reference_probability").mean(axis=0)
    return {
        "iteration": i + 1,
        "resolution_A": stage.resolution_A,
        "angles": stage.n_psi,
        "shift_range_A": stage.shift_range_A,
        "inverse_temperature": found.inverse_temperature,
        "log_evidence": float(found.gather("log_evidence").sum()),
        "mean_max_probability": float(found.gather("max_probability").mean()),
        "class_entropy": float(-xlogy(share, share).sum()),
        "changed_class": float(np.mean(old.best_class != new.best_class)),
        "median_class_resolution_A": float(np.median(class_resolutions(new, box_A))),
    }


def classified_table(
    table: StarTable, stack: ParticleStack, state: State, found: Expectation, stage: Stage, order: np.ndarray
) -> StarTable:
    """Return the particles with their class (1-based, ``order`` gives each class's place), pose and statistics."""
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(1, len(order) + 1)
    psi = found.gather("best_state") % stage.n_psi
    angles = matrix_to_euler(found.rotator.rotations[psi])
    origin_A = state.shift_px * stack.spectra.pixel_size_A
    rows = table.rows.assign(
        rlnClassNumber=place[state.best_class],
        rlnAngleRot=0.0,
        rlnAngleTilt=0.0,
        rlnAnglePsi=angles[:, 2],
        rlnOriginXAngst=origin_A[:, 0],
        rlnOriginYAngst=origin_A[:, 1],
        rlnMaxValueProbDistribution=found.gather("max_probability"),
        rlnNrOfSignificantSamples=found.gather("n_significant").astype(np.int64),
        rlnLogLikeliContribution=found.gather("log_evidence"),
    )
    return table.with_rows(rows)


def class_table(state: State, stack: ParticleStack, classes_path: Path, order: np.ndarray) -> pd.DataFrame:
    """Return the rows of ``data_model_classes``, in the order of the written averages."""
    spectra = stack.spectra
    information = np.square(spectra.ctf).mean(axis=0, dtype=np.float64) / state.sigma2[spectra.pixels.shell]
    degrees, angstrom = class_precision(state.averages[order], spectra.pixels, information, spectra.pixel_size_A)
    members = np.bincount(state.best_class, minlength=len(order))[order]
    inside = (state.frc[order, 1:] > 0.143).mean(axis=1)
    return pd.DataFrame(
        {
            "rlnReferenceImage": [format_image_name(i, classes_path) for i in range(len(order))],
            "rlnClassIndex": np.arange(1, len(order) + 1),
            "rlnClassDistribution": members / max(int(members.sum()), 1),
            "rlnAccuracyRotations": degrees,
            "rlnAccuracyTranslationsAngst": angstrom,
            "rlnEstimatedResolution": class_resolutions(state, spectra.box * spectra.pixel_size_A)[order],
            "rlnOverallFourierCompleteness": inside,
            "crpParticles": members,
        }
    )


def full_size(averages: np.ndarray, box: int) -> np.ndarray:
    """Return averages ``[n, b, b]`` with zeros around them up to ``box``."""
    result = np.zeros((len(averages), box, box), dtype=np.float32)
    low = box // 2 - averages.shape[-1] // 2
    result[:, low : low + averages.shape[-1], low : low + averages.shape[-1]] = averages
    return result


def main(inputs: dict[str, Any], outputs: dict[str, Path], params: Classify2d, context: Context) -> None:
    """Classify the particles of all tables in ``inputs["particles"]`` together."""
    tables = [read_table(path, "particles") for path in _as_list(inputs["particles"])]
    table = concatenate(tables)
    table = table.with_rows(table.rows.iloc[canonical_order(table.rows)])
    diameter_A, offset_A = require(params, "particle_diameter_A", "offset_range_A")
    stack = load_particle_stack(
        table,
        max_resolution_A=params.max_resolution_A,
        mask_diameter_A=params.mask_diameter_factor * diameter_A,
        threads=context.threads,
    )
    stacks = {parse_image_name(name)[1] for name in table.rows["rlnImageName"]}
    stamp = fingerprint(context, params, table, files=stacks)
    state, found, history = classify(stack, params, context, stamp=stamp)
    stage = make_schedule(params, diameter_A, offset_A)[-1]
    order = np.argsort(-np.bincount(state.best_class, minlength=len(state.share)), kind="stable")
    write_stack(outputs["classes"], full_size(state.averages[order], stack.full_box), stack.spectra.pixel_size_A)
    write_table(outputs["particles"], classified_table(table, stack, state, found, stage, order))
    write_blocks(
        outputs["model"],
        {
            "model_general": {
                "rlnReferenceDimensionality": 2,
                "rlnNrClasses": len(order),
                "rlnPixelSize": stack.spectra.pixel_size_A,
                "rlnOriginalImageSize": stack.full_box,
            },
            "model_classes": class_table(state, stack, outputs["classes"], order),
            "class_posteriors": _posteriors(found.gather("reference_probability")[:, order]),
        },
    )
    lines = ["\t".join(HISTORY), *("\t".join(f"{row[name]:.6g}" for name in HISTORY) for row in history)]
    atomic_write(outputs["history"], "\n".join(lines) + "\n")
    remove_state(context.work_dir)
    context.log.info("%d particles in %d classes", len(table), len(order))


def _posteriors(probability: np.ndarray, *, least: float = 1e-3) -> pd.DataFrame:
    """Return the class probabilities above ``least`` as (row of the particle table from 1, class, probability)."""
    rows, columns = np.nonzero(probability >= least)
    return pd.DataFrame(
        {"crpParticleRow": rows + 1, "rlnClassNumber": columns + 1, "crpWeight": probability[rows, columns]}
    )


def _as_list(paths: Any) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
