"""The M-step of a classification: new averages, shares, noise and shifts from the sums of the E-step."""

from __future__ import annotations

import numpy as np

from cryopipe.classes2d.averages import ClassSums, solve_averages
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
        rotations = found.rotator.rotations[psi][:, :2, :2]
        move = centring(shift - stack.prior_shift_px, best, rotations, classes, most_px=0.05 * store.box)
        averages = shift_images(averages, move) * mask
        shift = shift + np.einsum("nij,nj->ni", rotations, move[best])
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


def centring(moved: np.ndarray, best: np.ndarray, rotations: np.ndarray, classes: int, *, most_px: float) -> np.ndarray:
    """Return by how much each average has to move, so that its members lie about their picks without bias, px (x, y) [c, 2].

    Errors of picks have no direction in the frame of a class, into which members are turned by any angle: what all members
    of a class have in common there is the average's own distance from the centre. A noisy average's centre of mass told it
    worse: origins lay 3.2 Å (median) from the refined ones on EMPIAR-10146, where picks lay 1.7 Å from them.

    Parameters
    ----------
    moved : float64 ``[n, 2]``
        From each image's prior shift to the present one, px.
    best : int ``[n]``
        Class of each image.
    rotations : float64 ``[n, 2, 2]``
        In-plane rotation of each image: a move d of its average is one of A d of its shift.
    classes : int
        Averages.
    most_px : float
        Bound of the move in x and y.
    """
    common = np.einsum("nij,ni->nj", rotations, moved)  # A^T t
    count = np.bincount(best, minlength=classes)
    mean = np.stack([np.bincount(best, axis, classes) for axis in common.T], axis=1) / np.maximum(count, 1)[:, None]
    return np.clip(-mean, -most_px, most_px)
