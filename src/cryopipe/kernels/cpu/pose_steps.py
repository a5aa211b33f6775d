"""Levenberg-Marquardt on single images: steps, priors, bounds, acceptance; on the CPU a whole image in one go.

An image is followed to its end before the next one begins, so that its slices of the cube stay in the cache. On a GPU the
same functions move all images of a batch in step. An image's parameters are a rotation and x = (tx, ty, scale, defocus,
offset), of which ``slots`` says which are free; ``slots`` follows the order of the normal equations.

A compiled function that does not say what arithmetic it has takes that of the first caller that needs it: the helpers here,
called from sums that may be reordered and from elsewhere, say that theirs is strict, or their bits would depend on what was
compiled before.
"""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from cryopipe.kernels.cpu.pose_blocks import BLOCK, REDUCE, WORKSPACE
from cryopipe.kernels.cpu.poses import N_SUMS, add_sums, assemble
from cryopipe.kernels.cpu.threads import in_parts

#: damping relative to the diagonal: at the start, where the model of a step is not trusted fully, and at least
LAMBDA_START, LAMBDA_LEAST = 1e-2, 1e-6
#: places in x
SHIFT, SCALE, DEFOCUS, OFFSET = 0, 2, 3, 4
_TINY = 1e-300
#: least eigenvalue, relative to the largest entry, that is still information rather than rounding of the sums
_SINGULAR = 1e-9


@njit(fastmath=False)
def _rotation_vector(rotation, middle, vector):
    """Write the rotation vector of rotation middle^T (below half a turn)."""
    turned = rotation @ middle.T
    vector[0] = 0.5 * (turned[2, 1] - turned[1, 2])
    vector[1] = 0.5 * (turned[0, 2] - turned[2, 0])
    vector[2] = 0.5 * (turned[1, 0] - turned[0, 1])
    sine = np.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
    angle = np.arctan2(sine, 0.5 * (turned[0, 0] + turned[1, 1] + turned[2, 2] - 1.0))
    if sine > 1e-12:
        vector *= angle / sine


@njit(fastmath=False)
def penalise(hessian, gradient, value, rotation, x, middle, centre, precision, slots):
    """Add Gaussian priors to the normal equations and return the penalised value; ``precision`` [5] is 1 / variance.

    Its entries belong to each angle, each shift, scale, defocus and offset.

    Parameters
    ----------
    hessian : float64 [p, p]
        Normal equations of the image; the priors are added.
    gradient : float64 [p]
        Slope of the value; the priors are added.
    value : float
        Minus the log-likelihood.
    rotation, middle : float64 [3, 3]
        Pose, and the middle of its prior.
    x : float64 [5]
        Shift (x, y), scale, defocus and offset.
    centre : float64 [5]
        Middle of the prior of x.
    precision : float64 [5]
        1 / variance of the priors of each angle, each shift, scale, defocus and offset; 0 for none.
    slots : int [p - 3]
        Which entries of x are free, in the order of the normal equations.
    """
    objective = value
    if precision[0] > 0:
        turned = np.empty(3)
        _rotation_vector(rotation, middle, turned)
        for i in range(3):
            hessian[i, i] += precision[0]
            gradient[i] += precision[0] * turned[i]
            objective += 0.5 * precision[0] * turned[i] ** 2
    for i in range(slots.size):
        slot = slots[i]
        weight = precision[1] if slot < SCALE else precision[slot]
        if weight > 0:
            away = x[slot] - centre[slot]
            hessian[3 + i, 3 + i] += weight
            gradient[3 + i] += weight * away
            objective += 0.5 * weight * away**2
    return objective


@njit(fastmath=False)
def _solve(hessian, gradient, damping, step):
    """Solve (H + damping diag H) step = -gradient by Cholesky, in units that make the diagonal one.

    A direction without information (an axis of a sphere, an empty reference) stays where it is.
    """
    p = gradient.size
    unit, lower = np.empty(p), np.empty((p, p))
    for i in range(p):
        unit[i] = 1.0 / np.sqrt(hessian[i, i]) if hessian[i, i] > _TINY else 0.0
    for i in range(p):
        for j in range(i + 1):
            total = hessian[i, j] * unit[i] * unit[j]
            if i == j:
                total = 1.0 + damping + _SINGULAR
            for k in range(j):
                total -= lower[i, k] * lower[j, k]
            lower[i, j] = np.sqrt(max(total, _SINGULAR)) if i == j else total / lower[j, j]
    for i in range(p):
        total = -gradient[i] * unit[i]
        for k in range(i):
            total -= lower[i, k] * step[k]
        step[i] = total / lower[i, i]
    for i in range(p - 1, -1, -1):
        total = step[i]
        for k in range(i + 1, p):
            total -= lower[k, i] * step[k]
        step[i] = total / lower[i, i]
    for i in range(p):
        step[i] *= unit[i]


@njit(fastmath=False)
def _turned(step, rotation, out):
    """Write exp([w]x) rotation, w = step[:3], with the rounding that products of rotations gather removed."""
    angle = np.sqrt(step[0] ** 2 + step[1] ** 2 + step[2] ** 2)
    first = np.sin(angle) / angle if angle > 1e-8 else 1.0
    second = (1.0 - np.cos(angle)) / angle**2 if angle > 1e-4 else 0.5
    cross = np.zeros((3, 3))
    cross[0, 1], cross[0, 2], cross[1, 2] = -step[2], step[1], -step[0]
    cross[1, 0], cross[2, 0], cross[2, 1] = step[2], -step[1], step[0]
    turned = rotation + first * (cross @ rotation) + second * (cross @ (cross @ rotation))
    out[:] = 1.5 * turned - 0.5 * (turned @ (turned.T @ turned))


@njit(fastmath=False)
def propose(hessian, gradient, damping, rotation, x, limits, low, high, slots, new_rotation, new_x):
    """Write the bounded trial step to ``new_rotation`` and ``new_x`` and return the gain that the model promises.

    ``limits`` [5] are the longest steps of rotation (rad), shift, scale, defocus and offset; ``low`` and ``high`` [5]
    bound x.

    Parameters
    ----------
    hessian : float64 [p, p]
        Normal equations of the image.
    gradient : float64 [p]
        Slope of the value.
    damping : float
        Lambda of Levenberg and Marquardt.
    rotation : float64 [3, 3]
        Pose.
    x : float64 [5]
        Shift (x, y), scale, defocus and offset.
    limits : float64 [5]
        Longest steps of rotation (rad), shift, scale, defocus and offset.
    low, high : float64 [5]
        Bounds of x.
    slots : int [p - 3]
        Which entries of x are free, in the order of the normal equations.
    new_rotation, new_x : float64 [3, 3], [5]
        Receive the trial.
    """
    p = gradient.size
    matrix, slope, step = hessian.copy(), gradient.copy(), np.empty(p)
    for i in range(slots.size):
        at, slot = 3 + i, slots[i]
        if (x[slot] <= low[slot] and slope[at] > 0) or (x[slot] >= high[slot] and slope[at] < 0):
            matrix[at, :] = 0  # held at its bound
            matrix[:, at] = 0
            slope[at] = 0
    _solve(matrix, slope, damping, step)
    longest = np.sqrt(step[0] ** 2 + step[1] ** 2 + step[2] ** 2) / limits[0]
    longest = max(longest, np.sqrt(step[3] ** 2 + step[4] ** 2) / limits[1])
    for i in range(2, slots.size):
        longest = max(longest, abs(step[3 + i]) / limits[slots[i]])
    if longest > 1:
        step /= longest
    new_x[:] = x
    for i in range(slots.size):
        slot = slots[i]
        new_x[slot] = min(max(x[slot] + step[3 + i], low[slot]), high[slot])
        step[3 + i] = new_x[slot] - x[slot]
    _turned(step, rotation, new_rotation)
    promised = 0.0
    for i in range(p):
        curved = 0.0
        for j in range(p):
            curved += hessian[i, j] * step[j]
        promised -= step[i] * (gradient[i] + 0.5 * curved)
    return promised


@njit(fastmath=False)
def settle(gain, promised, damping, tolerance):
    """Return (whether to take the step, whether the image is done, next damping).

    Parameters
    ----------
    gain : float
        By how much the objective fell.
    promised : float
        By how much the model said that it would.
    damping : float
        Lambda of the step.
    tolerance : float
        Gain below which an image is done.
    """
    if gain > 0:
        return True, gain < tolerance, max(damping / 5, LAMBDA_LEAST)
    # a step that fails although it promised little: the interpolated reference has kinks that no smaller one resolves
    return False, promised < 10 * tolerance, damping * 10


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
