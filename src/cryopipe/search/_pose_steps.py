"""The Levenberg-Marquardt iteration of `refine_poses` on one batch of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cryopipe.imaging.backend import array_module, to_numpy
from cryopipe.imaging.geometry import rotation_from_vector, rotation_to_vector
from cryopipe.kernels.poses import normal_equations
from cryopipe.search.spectra import ParticleSpectra

_LAMBDA_START, _LAMBDA_LEAST = 1e-2, 1e-6


@dataclass(frozen=True)
class StepOptions:
    """Limits, tolerance and priors of the steps (radians and px), as `refine_poses` documents them."""

    iterations: int
    max_step_rad: float
    max_step_px: float
    tolerance: float
    shift_sigma_px: float
    rotation_sigma_rad: float
    with_scale: bool
    padding: int


class Batch:
    """The images of a batch in the form the kernel takes."""

    def __init__(
        self,
        images: ParticleSpectra,
        variance: np.ndarray,
        noise_group: np.ndarray | None,
        part: slice,
        cube: Any,
        options: StepOptions,
    ) -> None:
        self.xp = array_module(images.values, images.ctf, cube)
        self.cube, self.box, self.options = cube, images.box, options
        self.values = self.xp.ascontiguousarray(images.values)
        self.ctf = self.xp.ascontiguousarray(images.ctf)
        by_image = variance[0] if noise_group is None else variance[np.asarray(noise_group)[part]]
        self.variance = self.xp.asarray(by_image)
        self.kx, self.ky = self.xp.asarray(images.pixels.kx), self.xp.asarray(images.pixels.ky)
        power = (self.values.real**2 + self.values.imag**2) * self.variance
        self.noise_alone = to_numpy(power.sum(axis=1, dtype=np.float64)) / 2

    def evaluate(
        self, rows: np.ndarray, rotations: np.ndarray, shifts: np.ndarray, scale: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """Return (H, g, value) of minus the log-likelihood for the images ``rows``."""
        xp = self.xp
        every = len(rows) == len(self.values)
        index = xp.asarray(rows)
        result = normal_equations(
            self.cube,
            self.values if every else self.values[index],
            self.ctf if every else self.ctf[index],
            self.variance if every or self.variance.ndim == 1 else self.variance[index],
            xp.asarray(rotations),
            xp.asarray(shifts),
            self.kx,
            self.ky,
            box=self.box,
            padding=self.options.padding,
            scale=xp.asarray(scale, np.float32),
            with_scale=self.options.with_scale,
        )
        hessian, gradient, value = (to_numpy(array) for array in result)
        return hessian, gradient, value


@dataclass
class BatchState:
    """Where the images of a batch ended."""

    rotations: np.ndarray
    shifts: np.ndarray
    scale: np.ndarray
    value: np.ndarray
    covariance: np.ndarray
    converged: np.ndarray
    evaluations: int


def refine_batch(
    batch: Batch,
    rotations: np.ndarray,
    shifts: np.ndarray,
    scale: np.ndarray,
    centre: np.ndarray,
    middle: np.ndarray,
) -> BatchState:
    """Move all images of a batch until each has converged or the evaluations are used up."""
    options = batch.options
    rotations, shifts, scale = rotations.copy(), shifts.copy(), scale.copy()
    rows = np.arange(len(rotations))

    def penalised(at: np.ndarray, poses: np.ndarray, moved: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, ...]:
        hessian, gradient, value = batch.evaluate(at, poses, moved, factor)
        return *_with_priors(hessian, gradient, value, poses, moved, middle[at], centre[at], options), value

    hessian, gradient, objective, value = penalised(rows, rotations, shifts, scale)
    damping = np.full(len(rows), _LAMBDA_START)
    active = np.ones(len(rows), bool)
    evaluations = 1
    while evaluations < options.iterations and active.any():
        at = np.flatnonzero(active)
        step = _bounded_step(hessian[at], gradient[at], damping[at], options)
        promised = -np.einsum("ni,ni->n", step, gradient[at] + 0.5 * np.einsum("nij,nj->ni", hessian[at], step))
        small = promised < options.tolerance
        active[at[small]] = False
        at, step, promised = at[~small], step[~small], promised[~small]
        if len(at) == 0:
            break
        trial = _orthonormal(rotation_from_vector(step[:, :3]) @ rotations[at])
        trial_shift = shifts[at] + step[:, 3:5]
        trial_scale = np.clip(scale[at] + step[:, 5], 0.2, 5.0) if options.with_scale else scale[at]
        found = penalised(at, trial, trial_shift, trial_scale)
        evaluations += 1
        gain = objective[at] - found[2]
        better = gain > 0
        won = at[better]
        rotations[won], shifts[won], scale[won] = trial[better], trial_shift[better], trial_scale[better]
        hessian[won], gradient[won], objective[won], value[won] = (array[better] for array in found)
        active[at] = np.where(better, gain >= options.tolerance, promised >= 10 * options.tolerance)
        damping[at] = np.where(better, np.maximum(damping[at] / 5, _LAMBDA_LEAST), damping[at] * 10)
    return BatchState(rotations, shifts, scale, value, _inverse(hessian), ~active, evaluations)


def _with_priors(
    hessian: np.ndarray,
    gradient: np.ndarray,
    value: np.ndarray,
    rotations: np.ndarray,
    shifts: np.ndarray,
    middle: np.ndarray,
    centre: np.ndarray,
    options: StepOptions,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    hessian, gradient, objective = hessian.copy(), gradient.copy(), value.copy()
    if np.isfinite(options.shift_sigma_px):
        precision, away = options.shift_sigma_px**-2, shifts - centre
        hessian[:, (3, 4), (3, 4)] += precision
        gradient[:, 3:5] += precision * away
        objective += precision / 2 * (away**2).sum(axis=1)
    if np.isfinite(options.rotation_sigma_rad):
        precision, turned = options.rotation_sigma_rad**-2, rotation_to_vector(rotations @ middle.transpose(0, 2, 1))
        hessian[:, (0, 1, 2), (0, 1, 2)] += precision
        gradient[:, :3] += precision * turned
        objective += precision / 2 * (turned**2).sum(axis=1)
    return hessian, gradient, objective


def _bounded_step(hessian: np.ndarray, gradient: np.ndarray, damping: np.ndarray, options: StepOptions) -> np.ndarray:
    diagonal = np.einsum("nii->ni", hessian)
    # A direction without information (an axis of a sphere, an empty reference) must not make the matrix singular.
    floor = 1e-9 * np.maximum(diagonal.max(axis=1, keepdims=True), 1e-30)
    damped = hessian + np.einsum("ni,ij->nij", damping[:, None] * diagonal + floor, np.eye(hessian.shape[1]))
    step = -np.linalg.solve(damped, gradient[:, :, None])[:, :, 0]
    turn, move = np.linalg.norm(step[:, :3], axis=1), np.linalg.norm(step[:, 3:5], axis=1)
    longest = np.maximum(np.maximum(turn / options.max_step_rad, move / options.max_step_px), 1)
    return step / longest[:, None]


def _inverse(hessian: np.ndarray) -> np.ndarray:
    diagonal = np.einsum("nii->ni", hessian)
    floor = 1e-9 * np.maximum(diagonal.max(axis=1, keepdims=True), 1e-30)
    return np.linalg.inv(hessian + np.einsum("ni,ij->nij", floor, np.eye(hessian.shape[1])))


def _orthonormal(matrices: np.ndarray) -> np.ndarray:
    """Remove the rounding that products of rotations gather: one Newton step towards the nearest rotation."""
    return 1.5 * matrices - 0.5 * matrices @ matrices.transpose(0, 2, 1) @ matrices
