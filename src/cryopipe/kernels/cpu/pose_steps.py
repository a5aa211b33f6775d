"""Levenberg-Marquardt on single images: on the CPU a whole image in one go.

An image is followed to its end before the next one begins, so that its slices of the cube stay in the cache. On a GPU the
same functions move all images of a batch in step. An image's parameters are a rotation and x = (tx, ty, scale, defocus,
offset), of which ``slots`` says which are free; ``slots`` follows the order of the normal equations.
"""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from cryopipe.kernels.cpu.pose_parts.damped_step import DEFOCUS, LAMBDA_START, OFFSET, SCALE, penalise, propose, settle
from cryopipe.kernels.cpu.pose_parts.workspace import BLOCK, REDUCE, WORKSPACE
from cryopipe.kernels.cpu.poses import N_SUMS, add_sums, assemble
from cryopipe.kernels.cpu.threads import in_parts


def refine_images(*arguments: Any) -> None:
    """Move the poses of n images in place; the arguments are those of ``_refine_images``."""
    in_parts(_refine_images, len(arguments[-1]), *arguments)


@njit(cache=True, nogil=True, fastmath=REDUCE)
def _refine_images(
    first, last, flat, radius, data, ctf, inverse_variance, phase, per_unit, spectrum, kx, ky, padding, box, with_scale,
    n_defocus, rotations, x, middle, centre, precision, limits, low, high, slots, iterations, tolerance,
    hessian, value, converged, evaluations,
):  # fmt: skip
    """Move ``rotations`` [n, 3, 3] and ``x`` [n, 5] in place; fill the penalised Hessian, the value and the rest."""
    p = 3 + slots.size
    kappa = 2 * np.pi / box
    row, column = np.empty((2, BLOCK), np.int32), np.empty((2, BLOCK), np.int32)
    fraction, w = np.empty((2, 4 * BLOCK), np.float32), np.zeros(WORKSPACE, np.float32)
    sums, a = np.empty(N_SUMS, np.float64), np.empty((3, 3), np.float32)
    for n in range(first, last):
        turns = phase[n].copy()
        own = min(n, inverse_variance.shape[0] - 1)  # one row of weights serves all, or each has its own
        trial_rotation, trial_x = rotations[n].copy(), x[n].copy()
        trial_hessian, trial_gradient, gradient = np.empty((p, p)), np.empty(p), np.empty(p)
        damping, promised, objective = LAMBDA_START, 0.0, np.inf
        converged[n] = False
        for count in range(iterations):
            if count > 0:
                promised = propose(
                    hessian[n], gradient, damping, rotations[n], x[n], limits, low, high, slots, trial_rotation, trial_x
                )
                if not promised >= tolerance:  # where an image is not finite, no step is
                    converged[n] = promised < tolerance
                    break
            for i in range(3):
                for j in range(3):
                    a[i, j] = np.float32(trial_rotation[i, j]) * padding
            if turns.size > 0:
                turns[1] = phase[n, 1] + per_unit[n] * trial_x[DEFOCUS] / (2 * np.pi)
            add_sums(
                flat, radius, data[n], ctf[n], inverse_variance[own], a, -trial_x[0] / box, -trial_x[1] / box,
                np.float32(trial_x[SCALE]), turns, np.float32(per_unit[n]), spectrum, np.float32(trial_x[OFFSET]),
                kx, ky, with_scale, n_defocus, row, column, fraction, w, sums,
            )  # fmt: skip
            evaluations[n] = count + 1
            assemble(sums, kappa, p - 5, trial_hessian, trial_gradient)
            found = 0.5 * sums[9]
            trial = penalise(
                trial_hessian, trial_gradient, found, trial_rotation, trial_x, middle[n], centre[n], precision, slots
            )
            better, done = True, False
            if count > 0:
                better, done, damping = settle(objective - trial, promised, damping, tolerance)
            if better:
                rotations[n], x[n], hessian[n] = trial_rotation, trial_x, trial_hessian
                gradient[:] = trial_gradient
                value[n], objective = found, trial
            if done:
                converged[n] = True
                break


@njit(cache=True, nogil=True)
def propose_all(
    which, hessian, gradient, damping, rotations, x, limits, low, high, slots, trial_rotations, trial_x, promised
):  # fmt: skip
    """Call :func:`propose` for the images ``which``.

    Parameters
    ----------
    which : int [m]
        Images that take part.
    hessian, gradient, damping, rotations, x : array [n, ...]
        Of each image; see :func:`propose`.
    limits, low, high, slots : array
        As in :func:`propose`.
    trial_rotations, trial_x : float64 [n, 3, 3], [n, 5]
        Receive the trials.
    promised : float64 [n]
        Receives the gains that the model promises.
    """
    for n in which:
        promised[n] = propose(
            hessian[n],
            gradient[n],
            damping[n],
            rotations[n],
            x[n],
            limits,
            low,
            high,
            slots,
            trial_rotations[n],
            trial_x[n],
        )


@njit(cache=True, nogil=True)
def judge_all(
    which, first, new_hessian, new_gradient, new_value, trial_rotations, trial_x, middle, centre, precision, slots,
    tolerance, promised, damping, rotations, x, hessian, gradient, value, objective, converged,
):  # fmt: skip
    """Accept or refuse the trials of the images ``which``, whose normal equations are in rows 0, 1, ...

    Parameters
    ----------
    which : int [m]
        Images that take part.
    first : bool
        Whether these are the first normal equations of the images, which are always accepted.
    new_hessian, new_gradient, new_value : float64 [m, p, p], [m, p], [m]
        Normal equations at the trials of ``which``.
    trial_rotations, trial_x : float64 [n, 3, 3], [n, 5]
        The trials.
    middle, centre, precision, slots : array
        Priors; see :func:`penalise`, ``middle`` and ``centre`` for each image.
    tolerance : float
        Gain below which an image is done.
    promised, damping : float64 [n]
        Of :func:`propose_all`; the damping is renewed.
    rotations, x, hessian, gradient, value, objective : array [n, ...]
        State of each image: replaced where the trial is accepted.
    converged : bool [n]
        Receives whether an image is done.
    """
    for i in range(which.size):
        n = which[i]
        trial = penalise(
            new_hessian[i], new_gradient[i], new_value[i], trial_rotations[n], trial_x[n], middle[n], centre[n], precision,
            slots,
        )  # fmt: skip
        better, done = True, False
        if not first:
            better, done, damping[n] = settle(objective[n] - trial, promised[n], damping[n], tolerance)
        if better:
            rotations[n], x[n] = trial_rotations[n], trial_x[n]
            hessian[n], gradient[n] = new_hessian[i], new_gradient[i]
            value[n], objective[n] = new_value[i], trial
        converged[n] = done
