"""Refinement of poses to the maximum of the likelihood: Levenberg-Marquardt on the equations of `cryopipe.kernels.poses`.

On the CPU one thread refines one image to its end, while its part of the cube is in the cache. On a GPU all images are
evaluated together, and the small systems are solved on the host. Steps, priors and acceptance are the same functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cryopipe.kernels._dispatch import Array, backend_of, library
from cryopipe.kernels._pose_call import prepare
from cryopipe.kernels.poses import normal_equations

#: columns of x: shift x and y, scale, defocus change, grey offset
TX, TY, SCALE, DEFOCUS, OFFSET = range(5)


@dataclass(frozen=True)
class PoseProblem:
    """Images and the reference. The fields are the arguments of `cryopipe.kernels.poses.normal_equations`.

    ``phase`` is the phase at a defocus change of zero.
    """

    cube: Array
    images: Array
    ctf: Array
    inverse_variance: Array
    kx: Array
    ky: Array
    box: int
    padding: float = 2
    phase: Array | None = None
    per_A: Array | None = None
    offset_spectrum: Array | None = None


@dataclass(frozen=True)
class StepRules:
    """Free parameters, longest steps, and priors. Vectors [5] are (rotation, shift, scale, defocus, offset).

    Attributes
    ----------
    with_scale, with_defocus, with_offset : bool
    iterations : int
        Largest number of evaluations per image.
    tolerance : float
        In nats. The refinement of an image stops when the predicted or the actual gain of a step is smaller.
    limits : float64 [5]
        Longest steps, in radians, px, and so on.
    precision : float64 [5]
        1 / variance of Gaussian priors on each angle, each shift component, and so on. Zero: no prior.
    low, high : float64 [5]
        Bounds of x = (tx, ty, scale, defocus, offset).
    """

    with_scale: bool
    with_defocus: bool
    with_offset: bool
    iterations: int
    tolerance: float
    limits: np.ndarray
    precision: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def slots(self) -> np.ndarray:
        """Columns of x with the free parameters after the rotation, in the order of the normal equations, int64."""
        asked = ((SCALE, self.with_scale), (DEFOCUS, self.with_defocus), (OFFSET, self.with_offset))
        return np.array([TX, TY, *(slot for slot, wanted in asked if wanted)], np.int64)


@dataclass(frozen=True)
class FoundPoses:
    """Results: rotations [n, 3, 3], x [n, 5], Hessian with priors [n, p, p], value without priors [n], convergence."""

    rotations: np.ndarray
    x: np.ndarray
    hessian: np.ndarray
    value: np.ndarray
    converged: np.ndarray
    evaluations: np.ndarray


def refine(
    problem: PoseProblem,
    rules: StepRules,
    rotations: np.ndarray,
    x: np.ndarray,
    *,
    middle: np.ndarray,
    centre: np.ndarray,
) -> FoundPoses:
    """Refine every image from ``rotations`` and ``x``. The result of an image does not depend on other images.

    Parameters
    ----------
    problem : PoseProblem
        n images, as NumPy or CuPy arrays.
    rules : StepRules
    rotations : float64 [n, 3, 3]
    x : float64 [n, 5]
        Start (tx, ty, scale, defocus change, offset).
    middle, centre : float64 [n, 3, 3], [n, 5]
        Centres of the priors of rotation and x.

    Returns
    -------
    FoundPoses
        NumPy arrays.
    """
    n, slots = len(rotations), rules.slots
    p = 3 + len(slots)
    found = FoundPoses(
        np.array(rotations, np.float64), np.array(x, np.float64), np.zeros((n, p, p)), np.zeros(n), np.zeros(n, bool),
        np.zeros(n, np.int64),
    )  # fmt: skip
    middle, centre = np.ascontiguousarray(middle, np.float64), np.ascontiguousarray(centre, np.float64)
    if n == 0:
        return found
    if backend_of(cube=problem.cube, images=problem.images) == "cuda":
        _in_step(problem, rules, found, middle, centre, slots)
    else:
        _one_by_one(problem, rules, found, middle, centre, slots)
    return found


def _one_by_one(
    problem: PoseProblem, rules: StepRules, found: FoundPoses, middle: np.ndarray, centre: np.ndarray, slots: np.ndarray
) -> None:
    from cryopipe.kernels.cpu.pose_steps import refine_images

    call = prepare(
        problem.cube, problem.images, problem.ctf, problem.inverse_variance, problem.kx, problem.ky, problem.box,
        problem.padding, len(found.x), phase=problem.phase, per_A=problem.per_A, needs_phase=rules.with_defocus,
        offset_spectrum=problem.offset_spectrum,
    )  # fmt: skip
    per_A = np.zeros(len(found.x)) if problem.per_A is None else np.asarray(problem.per_A, np.float64)
    spectrum = call["spectrum"] if rules.with_offset else call["spectrum"][:0]
    refine_images(
        call["cube"], call["radius"], call["data"], call["ctf"], call["inverse_variance"], call["phase"], per_A, spectrum,
        call["kx"], call["ky"], np.float32(problem.padding), float(problem.box), rules.with_scale,
        int(rules.with_defocus), found.rotations, found.x, middle, centre, rules.precision, rules.limits, rules.low,
        rules.high, slots, rules.iterations, rules.tolerance, found.hessian, found.value, found.converged,
        found.evaluations,
    )  # fmt: skip


def _in_step(
    problem: PoseProblem, rules: StepRules, found: FoundPoses, middle: np.ndarray, centre: np.ndarray, slots: np.ndarray
) -> None:
    from cryopipe.kernels.cpu.pose_parts.damped_step import LAMBDA_START
    from cryopipe.kernels.cpu.pose_steps import judge_all, propose_all

    n = len(found.x)
    gradient, promised, objective = np.zeros(found.hessian.shape[:2]), np.zeros(n), np.zeros(n)
    damping = np.full(n, LAMBDA_START)
    trial_rotations, trial_x = found.rotations.copy(), found.x.copy()
    active = np.arange(n)
    for count in range(rules.iterations):
        if count > 0:
            propose_all(
                active, found.hessian, gradient, damping, found.rotations, found.x, rules.limits, rules.low, rules.high,
                slots, trial_rotations, trial_x, promised,
            )  # fmt: skip
            found.converged[active] = promised[active] < rules.tolerance
            active = active[promised[active] >= rules.tolerance]  # an image that is not finite has no finite step
        if len(active) == 0:
            break
        equations = _evaluate(problem, rules, active, trial_rotations[active], trial_x[active])
        found.evaluations[active] += 1
        judge_all(
            active, count == 0, *equations, trial_rotations, trial_x, middle, centre, rules.precision, slots,
            rules.tolerance, promised, damping, found.rotations, found.x, found.hessian, gradient, found.value, objective,
            found.converged,
        )  # fmt: skip
        active = active[~found.converged[active]]


def _evaluate(
    problem: PoseProblem, rules: StepRules, rows: np.ndarray, rotations: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return Hessian, gradient and value of images ``rows`` on the host."""
    xp = library("cuda")
    every = len(rows) == problem.images.shape[0]
    index = xp.asarray(rows)

    def of(array: Any) -> Any:
        return array if every or array is None else array[index]

    phase, per_A = of(problem.phase), of(problem.per_A)
    if phase is not None and per_A is not None:
        phase = phase.copy()
        phase[:, 1] += per_A * xp.asarray(x[:, DEFOCUS])
    result = normal_equations(
        problem.cube, of(problem.images), of(problem.ctf),
        problem.inverse_variance if problem.inverse_variance.ndim == 1 else of(problem.inverse_variance),
        xp.asarray(rotations), xp.asarray(x[:, :SCALE].copy()), problem.kx, problem.ky, box=problem.box,
        padding=problem.padding, scale=xp.asarray(x[:, SCALE].copy()), with_scale=rules.with_scale, phase=phase,
        per_A=per_A, defocus_terms=int(rules.with_defocus),
        offset_spectrum=problem.offset_spectrum if rules.with_offset else None, offset=xp.asarray(x[:, OFFSET].copy()),
    )  # fmt: skip
    return tuple(xp.asnumpy(array) for array in result)
