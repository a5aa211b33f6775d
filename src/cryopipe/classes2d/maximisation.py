"""The M-step of a classification: new averages, shares, noise and shifts from the sums of the E-step."""

from __future__ import annotations

import numpy as np

from cryopipe.classes2d.averages import ClassSums, centre_of_mass, solve_averages
from cryopipe.classes2d.expectation import Expectation
from cryopipe.classes2d.particle_stack import ParticleStack
from cryopipe.classes2d.revival import revived
from cryopipe.classes2d.rotation import Rotator, grids_of_images, images_of_grids
from cryopipe.classes2d.schedule import Stage
from cryopipe.classes2d.state import ClassificationState, padded_curves
from cryopipe.config.classes2d import Classify2d
from cryopipe.imaging.backend import to_numpy
from cryopipe.imaging.fourier import shift_images
from cryopipe.projection.pose_sums import PoseSums


def maximisation(
    stack: ParticleStack,
    state: ClassificationState,
    stage: Stage,
    found: Expectation,
    params: Classify2d,
    *,
    mask: np.ndarray,
    threads: int = 1,
) -> ClassificationState:
    """Return new averages, shares, noise and shifts from the sums of the E-step.

    Parameters
    ----------
    stack : ParticleStack
        The particles.
    state : ClassificationState
        What the E-step compared with.
    stage : Stage
        Settings of this iteration.
    found : Expectation
        Result of the E-step.
    params : Classify2d
        Regularisation, recentring.
    mask : float32 ``[b, b]``
        Mask of the averages.
    threads : int
        CPU threads.
    """
    classes, store = state.classes, stack.store
    halves = [_class_sums(sums, found.rotator, classes) for sums in found.sums]
    grids, frc = solve_averages((halves[0], halves[1]), tau_fudge=params.tau_fudge)
    averages = images_of_grids(grids, store.box, threads=threads) * mask
    probability = found.reference_probability.sum(axis=0)
    # a Dirichlet prior of 2 % of a fair share keeps one class from taking everything
    share = probability + 0.02 * len(store) / classes
    shift = found.shift_px
    psi = found.best_state % stage.n_psi
    best = (found.best_state // stage.n_psi).astype(np.int64)
    if params.recentre:
        averages, shift = _recentred(averages, shift, best, found.rotator.rotations[psi], mask)
    moved = shift - stack.prior_shift_px
    sd = float(np.clip(np.sqrt(np.mean(moved**2)), 2.0 / store.pixel_size_A, 10.0 / store.pixel_size_A))
    noise, curves = _new_noise(state, found), padded_curves(frc, state.sigma2)
    new = ClassificationState(averages, share / share.sum(), noise, shift, sd, best, curves)
    return revived(stack, new, found, stage, params, mask) if stage.revive else new


def _class_sums(sums: PoseSums, rotator: Rotator, classes: int) -> ClassSums:
    numerator, weight = to_numpy(sums.numerator), to_numpy(sums.weight)
    return ClassSums(rotator.add_up(numerator, classes), rotator.add_up(weight, classes).real)


def _new_noise(state: ClassificationState, found: Expectation) -> np.ndarray:
    first, second = found.sums
    pixels = found.rotator.pixels
    references = found.rotator.references(grids_of_images(state.averages, found.rotator.radius))
    host = PoseSums(to_numpy(first.numerator), to_numpy(first.weight), first.data_power, first.n_images).merge(
        PoseSums(to_numpy(second.numerator), to_numpy(second.weight), second.data_power, second.n_images)
    )
    ratio = host.noise_ratio(references, pixels)
    sigma2 = state.sigma2.copy()
    inside = slice(1, pixels.radius + 1)
    sigma2[inside] *= np.clip(ratio[inside], 0.2, 5.0)
    return sigma2


def _recentred(
    averages: np.ndarray, shift: np.ndarray, best: np.ndarray, rotations: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Move the centre of mass of each average to the centre, and the shifts of its particles with it: t becomes t + A d."""
    move = np.clip(-centre_of_mass(averages), -0.05 * averages.shape[-1], 0.05 * averages.shape[-1])
    turned = np.einsum("nij,nj->ni", rotations[:, :2, :2], move[best])
    return shift_images(averages, move) * mask, shift + turned
