"""One step of Levenberg and Marquardt: priors, the bounded trial, and whether it is taken.

A compiled function that does not say what arithmetic it has takes that of the first caller that needs it: the helpers here,
called from sums that may be reordered and from elsewhere, say that theirs is strict, or their bits would depend on what was
compiled before.
"""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit

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
