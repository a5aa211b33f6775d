"""Refinement of the optics in an iteration: defoci, astigmatism of micrographs, grey scales.

All evidence of a half set is gathered first. Then the width of the prior of each parameter is estimated from all particles of
the half set together (`cryopipe.iteration.priors`). The values follow from these widths. A parameter that the half set does not
determine is not changed. A half set uses only its own particles and its own reference.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cryopipe.iteration.half_set_state import HalfSet, OpticsOptions, Task
from cryopipe.iteration.priors.evidence import Evidence
from cryopipe.iteration.priors.levels import Levels, learn_levels
from cryopipe.iteration.priors.spread import learn, shrink
from cryopipe.poses.optics_evidence import OpticsEvidence

#: largest relative deviation of grey scales from their mean
_SCALE_REACH = 1.0
#: bounds of the grey scale of an image, as in `cryopipe.poses.model.ScaleModel`
_SCALES = (0.2, 5.0)


def update_optics(
    state: HalfSet,
    evidence: OpticsEvidence,
    micrograph: NDArray[np.int64] | None,
    task: Task,
    options: OpticsOptions,
) -> HalfSet:
    """Return the state with the defoci, astigmatism and scales that the evidence supports.

    Parameters
    ----------
    state : HalfSet
        State at which the evidence was measured. It is not modified.
    evidence : OpticsEvidence
        Evidence of all n particles.
    micrograph : int64 [n], optional
        Number of the micrograph of each particle.
    task, options : Task, OpticsOptions
        Which parameters are refined, and their priors.
    """
    change, error, scale, priors = state.ctf_change_A.copy(), state.defocus_error_A, state.scale, state.priors
    if task.defocus:
        told = Evidence(evidence.defocus, evidence.defocus_information, options.defocus_range_A)
        found = learn_levels(told, micrograph, width=options.defocus_prior_A)
        change[:, 0], error = found.value, found.error
        priors = replace(priors, defocus_A=found.particles.width, defocus_of_micrographs_A=found.micrographs.width)
        if options.refine_astigmatism and micrograph is not None:
            change[:, 1:], width = _astigmatism(state, evidence, micrograph, options)
            priors = replace(priors, astigmatism_A=width)
    if options.refine_scale and not task.grey:
        scale, found = _scales(evidence, micrograph, options.scale_prior)
        priors = replace(priors, scale=found.particles.width, scale_of_micrographs=found.micrographs.width)
    return replace(state, ctf_change_A=change, defocus_error_A=error, scale=scale, priors=priors)


def _astigmatism(
    state: HalfSet, evidence: OpticsEvidence, micrograph: NDArray[np.int64], options: OpticsOptions
) -> tuple[NDArray[np.float64], float]:
    """Return the change of astigmatism of every particle [n, 2], equal in a micrograph, and the width of its prior."""
    count = int(micrograph.max(initial=-1)) + 1
    information, slope = np.zeros((count, 2, 2, 2)), np.zeros((count, 2, 2))
    np.add.at(information, micrograph, evidence.astigmatism_information)
    np.add.at(slope, micrograph, evidence.astigmatism)
    present = np.zeros((count, 2))
    present[micrograph] = state.ctf_change_A[:, 1:]
    inverse = np.linalg.inv(information + 1e-12 * np.eye(2))
    estimate = present[:, None] + np.einsum("mpij,mpj->mpi", inverse, slope)  # [m, part, component]
    weight = 1 / np.einsum("mpii->mpi", inverse)
    rows = (estimate.transpose(0, 2, 1).reshape(-1, 2), weight.transpose(0, 2, 1).reshape(-1, 2))
    told, centre = Evidence(*rows, options.defocus_range_A), np.zeros(2 * count)
    prior = options.astigmatism_prior_A
    found = learn(told, centre) if prior is None else shrink(told, centre, prior)
    return found.value.reshape(count, 2)[micrograph], found.spread.width


def _scales(
    evidence: OpticsEvidence, micrograph: NDArray[np.int64] | None, width: float | None
) -> tuple[NDArray[np.float64], Levels]:
    """Return the grey scales of the particles, with a mean of one, and the estimated levels."""
    weight = evidence.scale_information
    grey = float((evidence.scale * weight).sum() / max(weight.sum(), 1e-300))
    told = Evidence(evidence.scale / grey - 1, weight * grey**2, _SCALE_REACH)
    found = learn_levels(told, micrograph, width=width)
    return np.clip(1 + found.value, *_SCALES), found
