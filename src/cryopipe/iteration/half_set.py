"""One half set of a gold-standard refinement: its poses, noise and map, and the step that improves them.

Nothing here sees the other half. What passes between the halves is in :mod:`cryopipe.iteration.exchange`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopipe.config.base import require
from cryopipe.config.refinement import RefineHomogeneous
from cryopipe.imaging.geometry import angular_distance_deg
from cryopipe.imaging.optics import CtfParameters
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.iteration.residuals import measure_residuals, refine_ctfs
from cryopipe.kernels.devices import Resources
from cryopipe.poses.ctf import with_defocus_change
from cryopipe.poses.model import DefocusModel
from cryopipe.poses.refine_candidates import Contest, refine_candidates
from cryopipe.poses.refine_poses import refine_poses
from cryopipe.projection.noise import NoiseModel, initial_sigma2
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import ReferenceMap, ReferenceSlices, reference_cube
from cryopipe.projection.working_box import in_box
from cryopipe.reconstruction.reconstruct import Reconstruction
from cryopipe.search.exhaustive.search import search_poses
from cryopipe.search.grid import orientation_grid, orientation_weights, random_displacement
from cryopipe.search.options import SearchOptions
from cryopipe.search.shifts import ShiftGrid, shift_grid

#: resolution of global searches: finer details would need a finer grid than order 3 (7.5° move the rim of 125 Å by 8 Å)
SEARCH_RESOLUTION_A = 12.0
#: below this likelihood share a pose counts as ambiguous and is searched again
LOW_CONFIDENCE = 0.5
#: images from which the grey scale of a foreign map is found
_GREY_SAMPLE = 150


@dataclass
class HalfSet:
    """State of one half set; shifts in px of the full-size images, changes of CTFs against the table in Å.

    Attributes
    ----------
    rotations : array float64 [n, 3, 3]
    shifts_px : array float64 [n, 2]
    confidence : array float64 [n]
        Likelihood of the pose over that of all distinct candidates of the last global search.
    log_likelihood : array float64 [n]
        Relative to noise alone.
    scale : array float64 [n]
        Grey scale of each image, mean 1.
    ctf_change_A : array float64 [n, 3]
        Mean defocus and the astigmatism's two components (see `cryopipe.poses.ctf.changed_parameters`).
    sigma2 : array float64 [shells]
        Noise variance of each of real and imaginary part.
    angle_change_deg : float
        Median change of the orientation in the last iteration.
    """

    rotations: NDArray[np.float64]
    shifts_px: NDArray[np.float64]
    confidence: NDArray[np.float64]
    log_likelihood: NDArray[np.float64]
    scale: NDArray[np.float64]
    ctf_change_A: NDArray[np.float64]
    sigma2: NDArray[np.float64]
    angle_change_deg: float

    @classmethod
    def start(cls, images: ParticleSpectra) -> HalfSet:
        """Return the state before any pose is known."""
        n = len(images)
        none, ones = np.zeros(n), np.ones(n)
        poses = np.tile(np.eye(3), (n, 1, 1))
        return cls(poses, np.zeros((n, 2)), none, none, ones, np.zeros((n, 3)), initial_sigma2(images), 180.0)


@dataclass(frozen=True)
class Task:
    """What an iteration does with a half set.

    Attributes
    ----------
    radius : int
        Shells that decide poses.
    reconstruct_radius : int
        Shells that are reconstructed; those beyond ``radius`` tell how far the next iteration can go.
    box : int
        Working box of references and reconstructions.
    search : {"all", "weak"}
        Whether all particles are searched globally, or those of low confidence and ``random_share`` of the others.
    random_share : float
    defocus : bool
        Whether defoci are refined.
    grey : bool
        Whether the reference's grey scale has to be found first.
    """

    radius: int
    reconstruct_radius: int
    box: int
    search: str
    random_share: float
    defocus: bool
    grey: bool


def advance(
    state: HalfSet,
    images: ParticleSpectra,
    parameters: CtfParameters,
    reference: NDArray[np.float32],
    task: Task,
    params: RefineHomogeneous,
    rng: np.random.Generator,
    *,
    micrographs: NDArray[Any],
    threads: int,
    devices: tuple[int, ...] | None = None,
) -> tuple[HalfSet, Reconstruction]:
    """Improve poses, noise, scales and defoci against the reference, then reconstruct.

    Parameters
    ----------
    state : HalfSet
        Not modified.
    images : ParticleSpectra
        The half's images at full size and radius.
    parameters : CtfParameters
        CTFs of the table, a row an image.
    reference : array float32 [box, box, box]
        The half's own filtered and masked map in the working box.
    task : Task
        What to do.
    params : RefineHomogeneous
        Symmetry and search options.
    rng : Generator
        Displaces the grid and draws the particles of a random re-search.
    micrographs : array [n]
        Each image's micrograph.
    threads : int
        CPU threads.
    devices : tuple of int, optional
        CUDA devices: images are searched and refined on all of them, and reconstructed on the current one.

    Returns
    -------
    state : HalfSet
    sums : Reconstruction
        Accumulators in the working box, to ``task.reconstruct_radius``; on the GPU where devices are given.
    """
    to_box = task.box / images.box
    small = in_box(images.crop(task.reconstruct_radius), task.box)
    small = with_ctfs(small, parameters, state.ctf_change_A).scaled(state.scale)
    used = small.crop(task.radius)
    if task.grey:
        factor = grey_scale(
            used, NoiseModel(state.sigma2), reference, params, rng, Resources(threads=threads, devices=devices)
        )
        reference = reference * np.float32(factor)
    noise, resources = NoiseModel(state.sigma2), Resources(threads=threads, devices=devices)
    current = ReferenceMap(reference_cube(reference, task.radius, threads=threads))
    old = state
    state = replace(state, shifts_px=state.shifts_px * to_box)
    state = _searched(state, used, reference, current, task, params, rng, resources)
    if task.defocus:
        nominal = replace(used, ctf=images.ctf[:, : len(used.pixels)])
        change = refine_ctfs(
            nominal,
            noise,
            current,
            state.rotations,
            state.shifts_px,
            defocus=DefocusModel(parameters, sigma_A=params.defocus_prior_A, range_A=params.defocus_range_A),
            micrograph=micrographs if params.refine_astigmatism else None,
            astigmatism_prior_A=params.astigmatism_prior_A,
            devices=devices,
        )
        state = replace(state, ctf_change_A=change)
        plain = replace(small, ctf=images.ctf[:, : len(small.pixels)])
        small = with_ctfs(plain, parameters, change).scaled(state.scale)
        used = small.crop(task.radius)
    measured = measure_residuals(used, noise, current, state.rotations, state.shifts_px, devices=devices)
    sigma2 = state.sigma2.copy()
    sigma2[: task.radius + 1] = measured.sigma2
    scale = state.scale
    if params.refine_scale and not task.grey:
        scale = np.clip(scale * measured.scale / np.median(scale * measured.scale), 0.5, 2.0)
    sums = Reconstruction.empty(
        task.box,
        task.reconstruct_radius,
        symmetry=str(params.symmetry),
        expected_slices=len(images),
        gpu=devices is not None,
    )
    weights = np.maximum(state.confidence, 0.05) if task.search == "all" else None
    sums.insert(small, state.rotations, state.shifts_px, 1 / sigma2, weights=weights)
    turned = angular_distance_deg(old.rotations, state.rotations, symmetry_operators(str(params.symmetry)))
    return replace(
        state,
        shifts_px=state.shifts_px / to_box,
        sigma2=sigma2,
        scale=scale,
        angle_change_deg=float(np.median(turned)),
    ), sums


def with_ctfs(images: ParticleSpectra, parameters: CtfParameters, change_A: NDArray[np.float64]) -> ParticleSpectra:
    """Return images that carry the CTFs of ``parameters`` with changes [n, 3] of their own; flipped ones keep their signs."""
    return with_defocus_change(images, parameters, needed_columns(change_A))


def needed_columns(change_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the changes of the mean defocus [n] alone where no astigmatism has changed, else all [n, 3]."""
    return change_A if change_A[:, 1:].any() else change_A[:, 0]


def _searched(
    state: HalfSet,
    used: ParticleSpectra,
    reference: NDArray[np.float32],
    current: ReferenceMap,
    task: Task,
    params: RefineHomogeneous,
    rng: np.random.Generator,
    resources: Resources,
) -> HalfSet:
    """Refine all poses from where they are, and search those globally that the task asks for; the better pose wins."""
    noise, everything = NoiseModel(state.sigma2), np.arange(len(used))
    chosen = everything
    if task.search == "weak":
        local = refine_poses(used, noise, current, state.rotations, state.shifts_px, resources=resources)
        state = replace(
            state, rotations=local.rotations, shifts_px=local.shifts_px, log_likelihood=local.log_likelihood
        )
        drawn = rng.random(len(used)) < task.random_share
        chosen = everything[drawn | (state.confidence < LOW_CONFIDENCE)]
        if len(chosen) == 0:
            return state
    part = used if len(chosen) == len(used) else used.subset(chosen)
    base = state.shifts_px[chosen]
    rotations, shifts = global_candidates(part, noise, reference, base, params, rng, resources)
    operators = symmetry_operators(str(params.symmetry))
    best, _, confidence = refine_candidates(
        part, noise, current, rotations, shifts, contest=Contest(operators), resources=resources
    )
    # against zero likelihood before the first search, any pose of a global search is better
    known = state.log_likelihood[chosen] if task.search == "weak" else np.full(len(chosen), -np.inf)
    wins = best.log_likelihood > known
    rows = chosen[wins]
    result = replace(
        state,
        rotations=state.rotations.copy(),
        shifts_px=state.shifts_px.copy(),
        confidence=state.confidence.copy(),
        log_likelihood=state.log_likelihood.copy(),
    )
    result.rotations[rows], result.shifts_px[rows] = best.rotations[wins], best.shifts_px[wins]
    result.log_likelihood[rows] = best.log_likelihood[wins]
    agree = angular_distance_deg(result.rotations[chosen], best.rotations, operators) < 1.0
    result.confidence[chosen] = np.where(wins | agree, confidence, result.confidence[chosen])
    return result


def global_candidates(
    images: ParticleSpectra,
    noise: NoiseModel,
    reference: NDArray[np.float32],
    base_shifts_px: NDArray[np.float64],
    params: RefineHomogeneous,
    rng: np.random.Generator,
    resources: Resources,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Search the asymmetric unit at low resolution and return the best poses of each image.

    Returns
    -------
    rotations : array float64 [n, m, 3, 3]
    shifts_px : array float64 [n, m, 2]
        Total shifts, base included.
    """
    side_A = images.box * images.pixel_size_A
    coarse = images.crop(min(images.pixels.radius, max(round(side_A / SEARCH_RESOLUTION_A), 4)))
    symmetry, order = str(params.symmetry), params.healpix_order
    grid = orientation_grid(order, symmetry)
    prior = np.log(orientation_weights(grid, symmetry))
    grid = random_displacement(rng, order) @ grid
    cube = reference_cube(reference, coarse.pixels.radius, threads=resources.cpu_threads)
    slices = ReferenceMap(cube).slices(grid, coarse.pixels)
    # a third of the finest period: at most a sixth of it is left to the continuous refinement
    step = images.box / coarse.pixels.radius / 3
    (range_A,) = require(params, "offset_range_A")
    shifts = shift_grid(max(range_A / images.pixel_size_A, step), step)
    found = search_poses(
        coarse,
        noise,
        ReferenceSlices(slices, prior),
        ShiftGrid(shifts, base_px=base_shifts_px),
        options=SearchOptions(candidates=params.candidates),
        resources=resources,
    )
    state = np.where(found.candidate_state >= 0, found.candidate_state, found.best_state[:, None])
    move = np.where(found.candidate_shift >= 0, found.candidate_shift, found.best_shift[:, None])
    return grid[state], base_shifts_px[:, None, :] + shifts[move]


def grey_scale(
    images: ParticleSpectra,
    noise: NoiseModel,
    reference: NDArray[np.float32],
    params: RefineHomogeneous,
    rng: np.random.Generator,
    resources: Resources,
) -> float:
    """Return the factor that brings a map of unknown grey scale to that of the images.

    Poses are found with the factor at hand, the factor by least squares at these poses; three times, from a factor that
    makes the map weak (poses then follow the cross term alone).
    """
    sample = images.subset(slice(0, _GREY_SAMPLE))
    one = params.model_copy(update={"candidates": 1})
    base = np.zeros((len(sample), 2))
    cube = reference_cube(reference, sample.pixels.radius, threads=resources.cpu_threads)
    probe = ReferenceMap(cube).slices(np.eye(3)[None], sample.pixels)
    strength = float(np.sum(np.abs(probe) ** 2 / (2 * noise.sigma2[sample.pixels.shell])))
    factor = 1 / np.sqrt(max(strength, 1e-30))
    for _ in range(3):
        scaled = reference * np.float32(factor)
        rotations, shifts = global_candidates(sample, noise, scaled, base, one, rng, resources)
        measured = measure_residuals(
            sample,
            noise,
            ReferenceMap(cube * np.float32(factor)),
            rotations[:, 0],
            shifts[:, 0],
            devices=resources.devices,
        )
        factor *= max(measured.grey, 1e-3)
    return float(factor)
