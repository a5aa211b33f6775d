"""Astigmatism of each micrograph, refined from all its particles with known poses together.

One particle has too little signal for its own astigmatism, but all particles of a micrograph share the same astigmatism.
Each particle has its own parameters: 3 angles, 2 shifts and mean defocus. Each micrograph has two parameters: the
components (U - V)/2 cos 2a and (U - V)/2 sin 2a of the astigmatism's tensor. Unlike the angle they are defined at zero
astigmatism. Their normal equations are the sum of the particles' equations after each particle's own parameters were
eliminated (Schur complement). Therefore the step and its covariance are those of the joint problem. A step also moves the
particles. It is kept if it raises the micrograph's likelihood.

Reference for the joint refinement of CTFs over a micrograph: Zivanov et al. 2018, doi:10.7554/eLife.42166.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module, to_numpy
from cryopipe.imaging.geometry import rotation_from_vector
from cryopipe.kernels.poses import normal_equations
from cryopipe.poses.batch import covariance_of, pose_problem
from cryopipe.poses.model import DefocusModel
from cryopipe.poses.refinement import PoseRefinement
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import ReferenceMap

#: a particle's own parameters: rotation, shift, mean defocus
_OWN = 6


@dataclass(frozen=True)
class AstigmatismRefinement:
    """Astigmatism of m micrographs, and the parameters of their particles.

    Attributes
    ----------
    micrographs : ndarray [m]
        Their names, sorted.
    change_A : float64 [m, 2]
        Change of the tensor's components.
    covariance : float64 [m, 2, 2]
        Covariance of the change in Å², with all other parameters free.
    particle_change_A : float64 [n, 3]
        Changes of mean defocus and tensor of every particle, for `cryopipe.poses.ctf.with_defocus_change`.
    rotations : float64 [n, 3, 3]
    shifts_px : float64 [n, 2]
    """

    micrographs: np.ndarray
    change_A: np.ndarray
    covariance: np.ndarray
    particle_change_A: np.ndarray
    rotations: np.ndarray
    shifts_px: np.ndarray


def refine_astigmatism(
    images: ParticleSpectra,
    noise: NoiseModel,
    reference: ReferenceMap,
    refined: PoseRefinement,
    defocus: DefocusModel,
    micrograph: np.ndarray,
    *,
    sigma_A: float = np.inf,
    iterations: int = 8,
    tolerance: float = 0.05,
) -> AstigmatismRefinement:
    """Refine the astigmatism of every micrograph from poses and defoci that `refine_poses` found.

    Parameters
    ----------
    images, noise, reference
        As for `cryopipe.poses.refine_poses.refine_poses`.
    refined : PoseRefinement
        Poses, scales and changes of the mean defocus of the particles.
    defocus : DefocusModel
        The images' CTFs, and the prior of each particle's mean defocus.
    micrograph : ndarray [n]
        Name or number of each particle's micrograph.
    sigma_A : float
        Standard deviation of a Gaussian prior about zero on both components of the change.
    iterations : int
        Largest number of evaluations.
    tolerance : float
        In nats. The refinement of a micrograph stops when a step gains less than this.

    Returns
    -------
    AstigmatismRefinement
        The sums over particles are correctly rounded, so that the order of the particles does not matter.
    """
    names, member = np.unique(np.asarray(micrograph), return_inverse=True)
    n, m = len(images), len(names)
    if member.shape != (n,):
        raise InputError(f"{np.shape(micrograph)} micrograph names for {n} images. Give one for each image.")
    weight, padding = noise.inverse_variance_of_each(images), reference.padding
    problem = pose_problem(
        images, weight, reference.cube, parameters=defocus.parameters, offset_spectrum=None, padding=padding
    )
    xp = array_module(problem.cube)
    centre = np.zeros(n) if defocus.centre_A is None else np.asarray(defocus.centre_A, np.float64)
    own_precision, shared_precision = defocus.sigma_A**-2.0, sigma_A**-2.0

    def evaluate(poses: np.ndarray, shifts: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, ...]:
        phase = to_numpy(problem.phase).copy()
        phase[:, 1:4] += to_numpy(problem.per_A)[:, None] * change
        found = normal_equations(
            problem.cube, problem.images, problem.ctf, problem.inverse_variance, xp.asarray(poses), xp.asarray(shifts),
            problem.kx, problem.ky, box=problem.box, padding=padding, scale=xp.asarray(refined.scale),
            phase=xp.asarray(phase), per_A=problem.per_A, defocus_terms=3,
        )  # fmt: skip
        hessian, gradient, value = (np.array(to_numpy(array)) for array in found)
        away = change[:, 0] - centre
        hessian[:, 5, 5] += own_precision
        gradient[:, 5] += own_precision * away
        value += 0.5 * own_precision * away**2
        return hessian, gradient, value

    poses, shifts = refined.rotations.copy(), refined.shifts_px.copy()
    change = np.stack([refined.defocus_change_A, np.zeros(n), np.zeros(n)], axis=1)
    hessian, gradient, value = evaluate(poses, shifts, change)
    damping, active, shared = np.full(m, 1e-2), np.ones(m, bool), np.zeros((m, 2))
    for _ in range(iterations - 1):
        if not active.any():
            break
        matrix, slope, response, alone = _reduced(hessian, gradient, member, m, damping)
        matrix += np.eye(2) * shared_precision
        slope += shared_precision * shared
        step = -np.linalg.solve(matrix, slope[:, :, None])[:, :, 0]
        step[~active] = 0
        own = np.where(active[member, None], alone - np.einsum("nij,nj->ni", response, step[member]), 0)
        trial = change + np.concatenate([own[:, 5:], step[member]], axis=1)
        trial_poses, trial_shifts = rotation_from_vector(own[:, :3]) @ poses, shifts + own[:, 3:5]
        found = evaluate(trial_poses, trial_shifts, trial)
        before = _sums(value, member, m) + 0.5 * shared_precision * (shared**2).sum(axis=1)
        after = _sums(found[2], member, m) + 0.5 * shared_precision * ((shared + step) ** 2).sum(axis=1)
        won = active & (after < before)
        rows = won[member]
        poses[rows], shifts[rows], change[rows] = trial_poses[rows], trial_shifts[rows], trial[rows]
        hessian[rows], gradient[rows], value[rows] = found[0][rows], found[1][rows], found[2][rows]
        shared[won] += step[won]
        active &= np.where(won, before - after >= tolerance, damping < 1e3)
        damping = np.where(won, damping / 5, damping * 10)
    matrix, _, _, _ = _reduced(hessian, gradient, member, m, np.zeros(m))
    covariance = covariance_of(matrix + np.eye(2) * shared_precision)
    return AstigmatismRefinement(names, shared, covariance, change, poses, shifts)


def _reduced(
    hessian: np.ndarray, gradient: np.ndarray, member: np.ndarray, m: int, damping: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Eliminate the particles' own parameters.

    The results are the micrographs' matrices [m, 2, 2] and gradients [m, 2], the particles' response to a step of their
    micrograph [n, 6, 2], and their steps without a step of their micrograph [n, 6].
    """
    own, cross = hessian[:, :_OWN, :_OWN].copy(), hessian[:, :_OWN, _OWN:]
    diagonal = np.arange(_OWN)
    own[:, diagonal, diagonal] *= 1 + damping[member, None]
    inverse = covariance_of(own)
    inverse = np.where(np.isfinite(inverse), inverse, 0)  # a parameter without information is not moved
    response = inverse @ cross
    alone = -np.einsum("nij,nj->ni", inverse, gradient[:, :_OWN])
    shared = hessian[:, _OWN:, _OWN:] * (1 + damping[member, None, None] * np.eye(2))
    matrix = _sums(shared - cross.transpose(0, 2, 1) @ response, member, m)
    slope = _sums(gradient[:, _OWN:] + np.einsum("nij,ni->nj", cross, alone), member, m)
    floor = 1e-9 * np.trace(matrix, axis1=1, axis2=2)[:, None, None] + 1e-300
    return matrix + floor * np.eye(2), slope, response, alone


def _sums(values: np.ndarray, member: np.ndarray, m: int) -> np.ndarray:
    """Return the sums [m, ...] over the particles of each micrograph, correctly rounded for any order."""
    flat = values.reshape(len(values), -1)
    found = np.empty((m, flat.shape[1]))
    for i in range(m):
        rows = flat[member == i]
        found[i] = [math.fsum(column) for column in rows.T]
    return found.reshape(m, *values.shape[1:])
