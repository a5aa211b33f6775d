"""The results of a classification as tables: particles, classes, and the class probabilities of particles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cryopipe.classes2d.expectation import Expectation
from cryopipe.classes2d.particle_stack import ParticleStack
from cryopipe.classes2d.precision import class_precision
from cryopipe.classes2d.schedule import Stage
from cryopipe.classes2d.state import ClassificationState, class_resolutions
from cryopipe.imaging.geometry import matrix_to_euler
from cryopipe.io.mrc import format_image_name
from cryopipe.io.star import StarTable

#: number of particles whose probabilities are sorted together; they take a few MB with 50 classes
_PORTION = 10000


def classified_table(
    table: StarTable,
    stack: ParticleStack,
    state: ClassificationState,
    found: Expectation,
    stage: Stage,
    order: np.ndarray,
) -> StarTable:
    """Return the particles with their class (1-based), pose and statistics.

    Parameters
    ----------
    table : StarTable
        The particles.
    stack : ParticleStack
        Images of the particles.
    state : ClassificationState
        State after the final pass.
    found : Expectation
        Result of the final pass.
    stage : Stage
        The final pass.
    order : int ``[classes]``
        The classes in the order of the written averages.
    """
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(1, len(order) + 1)
    psi = found.best_state % stage.n_psi
    angles = matrix_to_euler(found.rotator.rotations[psi])
    origin_A = state.shift_px * stack.store.pixel_size_A
    rows = table.rows.assign(
        rlnClassNumber=place[state.best_class],
        rlnAngleRot=0.0,
        rlnAngleTilt=0.0,
        rlnAnglePsi=angles[:, 2],
        rlnOriginXAngst=origin_A[:, 0],
        rlnOriginYAngst=origin_A[:, 1],
        rlnMaxValueProbDistribution=found.max_probability,
        rlnNrOfSignificantSamples=found.n_significant.astype(np.int64),
        rlnLogLikeliContribution=found.log_evidence,
    )
    return table.with_rows(rows)


def class_table(
    state: ClassificationState, stack: ParticleStack, classes_path: Path, order: np.ndarray
) -> pd.DataFrame:
    """Return the rows of ``data_model_classes``, in the order of the written averages.

    Parameters
    ----------
    state : ClassificationState
        State after the final pass.
    stack : ParticleStack
        The particles.
    classes_path : Path
        File of the averages.
    order : int ``[classes]``
        The classes in the order of the written averages.
    """
    store = stack.store
    pixels = store.pixels(store.radius)
    power = np.zeros(len(pixels))
    for rows in store.cuts():
        ctf = store.ctf(rows, store.radius)
        power += np.square(ctf, out=ctf).sum(axis=0, dtype=np.float64)
    information = power / len(store) / state.sigma2[pixels.shell]
    degrees, angstrom = class_precision(state.averages[order], pixels, information, store.pixel_size_A)
    members = np.bincount(state.best_class, minlength=len(order))[order]
    inside = (state.frc[order, 1:] > 0.143).mean(axis=1)
    return pd.DataFrame(
        {
            "rlnReferenceImage": [format_image_name(i, classes_path) for i in range(len(order))],
            "rlnClassIndex": np.arange(1, len(order) + 1),
            "rlnClassDistribution": members / max(int(members.sum()), 1),
            "rlnAccuracyRotations": degrees,
            "rlnAccuracyTranslationsAngst": angstrom,
            "rlnEstimatedResolution": class_resolutions(state, store.side_A)[order],
            "rlnOverallFourierCompleteness": inside,
            "crpParticles": members,
        }
    )


def posterior_table(probability: np.ndarray, order: np.ndarray, *, least: float = 1e-3) -> pd.DataFrame:
    """Return the class probabilities above ``least``, row by row.

    Parameters
    ----------
    probability : float64 ``[n, classes]``
        Class probabilities of each particle.
    order : int ``[classes]``
        The classes in the order of the written averages.
    least : float
        Smaller probabilities are left out.

    Returns
    -------
    DataFrame
        Row of the particle table (from 1), class (from 1) and probability.
    """
    parts = []
    for start in range(0, len(probability), _PORTION):
        portion = probability[start : start + _PORTION, order]
        rows, columns = np.nonzero(portion >= least)
        parts.append((start + rows + 1, columns + 1, portion[rows, columns]))
    row, column, weight = (np.concatenate(part) for part in zip(*parts, strict=True))
    return pd.DataFrame({"crpParticleRow": row, "rlnClassNumber": column, "crpWeight": weight})
