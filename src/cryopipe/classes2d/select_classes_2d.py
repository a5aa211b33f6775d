"""Step ``select_classes_2d``: keep the classes that show the particle. Rules reject junk; the user can overrule them.

Classes are judged by features of their averages. For ferritin, iron-loaded classes are rejected, too, which replaces the
choice of the 'noFerritin' classes by eye. In addition the core density of each particle is measured
(`cryopipe.classes2d.core_density`), and particles with most of their class posterior in rejected ferritin classes are
rejected. Class numbers are those of the averages.

Known limits: the ferritin rules (`remove_ferritin`) are for hollow, nearly round particles. There is no learned score.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from cryopipe.classes2d.core_density import CoreDensity, core_densities
from cryopipe.classes2d.decisions import FERRITIN, ClassDecision, ClassVerdict, judge_classes, overrule, read_decision
from cryopipe.classes2d.features import class_features, ring_and_core, spread_over_classes
from cryopipe.classes2d.particle_stack import open_particle_stack
from cryopipe.config.classes2d import SelectClasses2d
from cryopipe.config.declaration.base import require
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.io.atomic import atomic_write
from cryopipe.io.mrc import read_stack
from cryopipe.io.star import StarTable, read_blocks, read_table, write_blocks, write_table

#: Finest resolution at which core densities are measured, Å. Finer details depend on the view of the particle.
CORE_RESOLUTION_A = 14.0


def rejection_reasons(
    table: StarTable,
    posteriors: pd.DataFrame,
    verdicts: list[ClassVerdict],
    cores: CoreDensity | None,
    params: SelectClasses2d,
) -> list[str]:
    """Return for every particle the reason why it is rejected, or an empty text.

    If the user decided to keep a class, all its particles are kept.

    Parameters
    ----------
    table : StarTable
        Particles with rlnClassNumber.
    posteriors : DataFrame
        crpParticleRow, rlnClassNumber, crpWeight.
    cores : CoreDensity or None
        Core density of every particle. None if it is not measured.
    """
    numbers = table.rows["rlnClassNumber"].to_numpy(dtype=np.int64)
    ferritin = np.array([(not v.keep) and v.reason.startswith(FERRITIN) for v in verdicts])
    in_ferritin = posteriors[ferritin[posteriors["rlnClassNumber"].to_numpy(dtype=np.int64) - 1]]
    row = in_ferritin["crpParticleRow"].to_numpy(dtype=np.int64) - 1
    share = np.bincount(row, weights=in_ferritin["crpWeight"].to_numpy(dtype=np.float64), minlength=len(numbers))
    reasons = []
    for i, number in enumerate(numbers):
        verdict = verdicts[number - 1]
        reason = ""
        if not verdict.keep:
            reason = f"class {number}: {verdict.reason}"
        elif params.remove_ferritin and verdict.decided_by == "rule":
            if share[i] > 0.5:
                reason = f"ferritin classes hold {share[i]:.2f} of its probability"
            elif cores is not None and cores.density[i] > params.particle_core_threshold:
                limit = params.core_significance * cores.error[i]
                if cores.density[i] > limit:
                    reason = f"core density {cores.density[i]:.2f} ± {cores.error[i]:.2f} of the shell's"
        reasons.append(reason)
    return reasons


def main(inputs: dict[str, Any], outputs: dict[str, Path], params: SelectClasses2d, context: Context) -> None:
    """Judge the classes, then the particles.

    Inputs: ``particles`` and ``model`` (STAR), ``classes`` (MRC stack), ``decision`` (YAML, optional), which overrules the
    verdicts. Outputs: ``particles``, ``rejected`` and ``class_features`` (STAR), ``selection`` (YAML).
    """
    (diameter_A,) = require(params, "particle_diameter_A")
    table = read_table(inputs["particles"], "particles")
    averages, pixel_A = read_stack(inputs["classes"])
    if pixel_A is None:
        raise InputError(f"{inputs['classes']}: the header has no pixel size. Run classify_2d again.")
    model = read_blocks(inputs["model"])
    if len(model["model_classes"]) != len(averages):
        raise InputError(
            f"{inputs['model']} has {len(model['model_classes'])} classes, but {inputs['classes']} has {len(averages)}: they "
            "are from different runs. Run classify_2d again."
        )
    numbers = table.rows["rlnClassNumber"].to_numpy(dtype=np.int64)
    features = pd.concat([model["model_classes"], class_features(averages, pixel_A, diameter_A)], axis=1)
    features["crpECA"] = spread_over_classes(model["class_posteriors"], numbers, len(averages))
    _check_contrast(averages, features, diameter_A / pixel_A)
    digest = hashlib.sha256(Path(inputs["classes"]).read_bytes()).hexdigest()
    decision = _decision(inputs, len(averages), digest)
    verdicts = overrule(judge_classes(features, params), decision)
    cores = _measure_cores(table, averages, features, verdicts, params, context) if params.remove_ferritin else None
    reasons = rejection_reasons(table, model["class_posteriors"], verdicts, cores, params)
    _write(table, features, verdicts, cores, reasons, outputs, digest, context)


def _decision(inputs: dict[str, Any], classes: int, digest: str) -> ClassDecision | None:
    given = inputs.get("decision")
    paths = [given] if isinstance(given, str | Path) else list(given or [])
    return read_decision(Path(paths[0]), classes=classes, classes_sha256=digest) if paths else None


def _check_contrast(averages: np.ndarray, features: pd.DataFrame, diameter_px: float) -> None:
    weights = features["crpParticles"].to_numpy(dtype=np.float64)
    mean = np.tensordot(weights / max(weights.sum(), 1.0), averages, axes=1)
    if ring_and_core(mean, diameter_px)[0] <= 0:
        raise InputError(
            "the class averages are darker on the particle than around it. Images must have bright protein "
            "(extract_particles.invert_contrast), and particle_diameter_A must be right."
        )


def _measure_cores(
    table: StarTable,
    averages: np.ndarray,
    features: pd.DataFrame,
    verdicts: list[ClassVerdict],
    params: SelectClasses2d,
    context: Context,
) -> CoreDensity | None:
    """Return the core densities, or None if there is no empty class to compare with."""
    (diameter_A,) = require(params, "particle_diameter_A")
    kept = np.array([v.keep for v in verdicts])
    weights = np.where(kept, features["crpParticles"].to_numpy(dtype=np.float64), 0.0)
    if weights.sum() == 0:
        return None
    # the half with the lower core ratios, so that classes with some full particles do not set the standard
    limit = np.median(features["crpCoreRatio"][weights > 0])
    weights = np.where(features["crpCoreRatio"] <= limit, weights, 0.0)
    stack = open_particle_stack(
        table,
        max_resolution_A=CORE_RESOLUTION_A,
        mask_diameter_A=1.2 * diameter_A,
        memory_bytes=context.memory_bytes,
        threads=context.threads,
    )
    box = stack.store.box
    low = averages.shape[-1] // 2 - box // 2
    empty = np.tensordot(weights / weights.sum(), averages, axes=1)[low : low + box, low : low + box].astype(np.float32)
    return core_densities(
        stack,
        empty,
        outer_diameter_A=diameter_A,
        inner_diameter_A=params.cavity_diameter_fraction * diameter_A,
        core_diameter_A=params.core_diameter_fraction * diameter_A,
    )


def _write(
    table: StarTable,
    features: pd.DataFrame,
    verdicts: list[ClassVerdict],
    cores: CoreDensity | None,
    reasons: list[str],
    outputs: dict[str, Path],
    digest: str,
    context: Context,
) -> None:
    rows = table.rows
    if cores is not None:
        rows = rows.assign(crpCoreDensity=cores.density, crpCoreDensityError=cores.error)
    gone = np.array([bool(reason) for reason in reasons], dtype=bool)
    text = np.array(reasons, dtype=object)
    write_table(outputs["particles"], table.with_rows(rows[~gone]))
    write_table(outputs["rejected"], table.with_rows(rows[gone].assign(crpReason=text[gone])))
    features = features.assign(
        crpKept=[int(v.keep) for v in verdicts],
        crpReason=[v.reason or "none" for v in verdicts],
        crpDecidedBy=[v.decided_by for v in verdicts],
        crpKeptParticles=np.bincount(rows["rlnClassNumber"].to_numpy(np.int64)[~gone] - 1, minlength=len(verdicts)),
    )
    write_blocks(outputs["class_features"], {"class_features": features})
    share = float((~gone).mean()) if len(gone) else 0.0
    review = not 0.5 <= share <= 0.995
    if review:
        context.log.warning("%.1f %% of the particles are kept; check the class averages", 100 * share)
    summary = {
        "classes_sha256": digest,
        "particles": len(gone),
        "kept": int((~gone).sum()),
        "rejected": int(gone.sum()),
        "needs_review": review,
        "classes": [
            {
                "class": i + 1,
                "particles": int(features["crpParticles"].iloc[i]),
                "keep": verdict.keep,
                "reason": verdict.reason,
                "decided_by": verdict.decided_by,
                "core_ratio": round(float(features["crpCoreRatio"].iloc[i]), 3),
                "resolution_A": round(float(features["rlnEstimatedResolution"].iloc[i]), 2),
                "signal": round(float(features["crpSignal"].iloc[i]), 2),
                "edge_score": round(float(features["crpEdgeScore"].iloc[i]), 3),
                "effective_classes": round(float(features["crpECA"].iloc[i]), 2),
            }
            for i, verdict in enumerate(verdicts)
        ],
    }
    atomic_write(outputs["selection"], yaml.safe_dump(summary, sort_keys=False))
    context.log.info("%d of %d particles kept", int((~gone).sum()), len(gone))
