"""New particles for classes that have lost theirs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cryopipe.classes2d.averages import ClassSums, solve_averages
from cryopipe.classes2d.expectation import Expectation
from cryopipe.classes2d.particle_stack import ParticleStack
from cryopipe.classes2d.rotation import images_of_grids
from cryopipe.classes2d.schedule import Stage
from cryopipe.classes2d.state import ClassificationState
from cryopipe.config.classes2d import Classify2d
from cryopipe.projection.phases import shift_values

#: a class with less than this share of a fair class is empty
_EMPTY = 0.1
#: a class with fewer particles gives none away
_FEWEST = 8


def revived(
    stack: ParticleStack,
    state: ClassificationState,
    found: Expectation,
    stage: Stage,
    params: Classify2d,
    mask: np.ndarray,
) -> ClassificationState:
    """Give each class that has lost nearly all probability that half of a large class which fits its average worse.

    Parameters
    ----------
    stack : ParticleStack
        The particles.
    state : ClassificationState
        State after the M-step.
    found : Expectation
        Result of the E-step.
    stage : Stage
        Settings of this iteration.
    params : Classify2d
        Regularisation.
    mask : float32 ``[b, b]``
        Mask of the averages.
    """
    classes, n = state.classes, len(stack.store)
    probability = found.reference_probability.sum(axis=0) / n
    empty = np.flatnonzero(probability < _EMPTY / classes)
    donors = np.argsort(-np.bincount(state.best_class, minlength=classes), kind="stable")
    if empty.size == 0:
        return state
    inverse = (1.0 / state.sigma2[found.rotator.pixels.shell]).astype(np.float32)
    residual = _residuals(stack, found, inverse)
    psi, shift = found.best_state % stage.n_psi, found.shift_px
    averages, share = state.averages.copy(), state.share.copy()
    for c, donor in zip(empty, donors, strict=False):
        members = np.flatnonzero(state.best_class == donor)
        if len(members) < _FEWEST:
            break
        members = members[np.argsort(-residual[members], kind="stable")][: len(members) // 2]
        halves = (_added_up(stack, found, half, psi, shift, inverse) for half in (members[0::2], members[1::2]))
        first, second = halves
        grids, _ = solve_averages((first, second), tau_fudge=params.tau_fudge)
        averages[c] = images_of_grids(grids, stack.store.box)[0] * mask
        share[c] = share[donor] = 0.5 * share[donor]
    return replace(state, averages=averages, share=share / share.sum())


def _residuals(stack: ParticleStack, found: Expectation, inverse: np.ndarray) -> np.ndarray:
    """Return the residual power of each particle at its best state, over the noise, ``[n]``."""
    power = np.empty(len(stack.store), np.float32)
    for rows, images in stack.store.blocks(found.rotator.pixels.radius):
        power[rows] = (np.square(np.abs(images.values)) * inverse).sum(axis=1)
    return power - 2 * found.best_dot + found.best_norm


def _added_up(
    stack: ParticleStack,
    found: Expectation,
    members: np.ndarray,
    psi: np.ndarray,
    shift_px: np.ndarray,
    inverse: np.ndarray,
) -> ClassSums:
    """Return the sums of some particles at their best angles and shifts, as one class."""
    rotator = found.rotator
    numerator = np.zeros((len(rotator.rotations), len(rotator.pixels)), dtype=np.complex64)
    weight = np.zeros(numerator.shape, dtype=np.float32)
    for some, images in stack.store.subset(members).blocks(rotator.pixels.radius):
        rows = members[some]
        shifted = shift_values(images.values, images.pixels, shift_px[rows])
        np.add.at(numerator, psi[rows], images.ctf * shifted * inverse)
        np.add.at(weight, psi[rows], np.square(images.ctf) * inverse)
    return ClassSums(rotator.add_up(numerator, 1), rotator.add_up(weight, 1).real)
