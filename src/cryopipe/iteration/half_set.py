"""One half set of a gold-standard refinement: its poses, noise and map, and the step that improves them.

Nothing here sees the other half. What passes between the halves is in :mod:`cryopipe.iteration.exchange`. Images come in
blocks from the particle store, twice in an iteration: for poses, CTFs and residuals, and, once the noise of the whole
half is known, for the reconstruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopipe.imaging.fourier_pixels import half_plane
from cryopipe.imaging.geometry import angular_distance_deg
from cryopipe.imaging.optics import CtfParameters
from cryopipe.iteration.global_search import GREY_SAMPLE, GlobalSearch, SearchOptions, grey_scale
from cryopipe.iteration.halves import Half
from cryopipe.iteration.particle_store import ParticleStore
from cryopipe.iteration.pose_table import Poses
from cryopipe.iteration.residuals import CtfOptions, Residuals, measure_residuals, refine_ctfs
from cryopipe.poses.ctf import with_defocus_change
from cryopipe.poses.refine_poses import refine_poses
from cryopipe.projection.noise import ImagePower
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import reference_cube
from cryopipe.projection.working_box import in_box
from cryopipe.reconstruction.reconstruct import Reconstruction

#: below this likelihood share a pose counts as ambiguous and is searched again
LOW_CONFIDENCE = 0.5
#: least weight of an image in the reconstruction of an iteration that searches all poses globally
_LEAST_WEIGHT = 0.05
#: bounds of an image's grey scale
_SCALES = (0.5, 2.0)


@dataclass(frozen=True, eq=False)
class HalfSet:
    """State of one half set; changes of CTFs against the table in Å.

    Attributes
    ----------
    poses : Poses
        Shifts in px of the full-size images.
    scale : array float64 [n]
        Grey scale of each image, median 1.
    ctf_change_A : array float64 [n, 3]
        Mean defocus and the astigmatism's two components (see `cryopipe.poses.ctf.changed_parameters`).
    sigma2 : array float64 [shells]
        Noise variance of each of real and imaginary part.
    angle_change_deg : float
        Median change of the orientation in the last iteration.
    """

    poses: Poses
    scale: NDArray[np.float64]
    ctf_change_A: NDArray[np.float64]
    sigma2: NDArray[np.float64]
    angle_change_deg: float

    @classmethod
    def start(cls, store: ParticleStore) -> HalfSet:
        """Return the state before any pose is known; the noise model is that of the images' power."""
        n = len(store)
        power = ImagePower(store.pixels(store.radius))
        for _, images in store.blocks(store.radius):
            power.add(images)
        return cls(Poses.unknown(n), np.ones(n), np.zeros((n, 3)), power.initial_sigma2(), 180.0)


@dataclass(frozen=True)
class HalfSetOptions:
    """How a half set is refined, the same in every iteration.

    Attributes
    ----------
    search : SearchOptions
        Of the global search; its point group is imposed on the map.
    ctf : CtfOptions
        Used where the task asks for defoci.
    refine_scale : bool
        Whether every image has a grey scale of its own.
    """

    search: SearchOptions
    ctf: CtfOptions
    refine_scale: bool = False


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
    half: Half,
    reference: NDArray[np.float32],
    task: Task,
    options: HalfSetOptions,
    rng: np.random.Generator,
    *,
    threads: int,
    devices: Sequence[int] | None = None,
) -> tuple[HalfSet, Reconstruction]:
    """Improve poses, noise, scales and defoci against the reference, then reconstruct.

    Parameters
    ----------
    state : HalfSet
        Not modified.
    half : Half
        The particles.
    reference : array float32 [box, box, box]
        The half's own filtered and masked map in the working box.
    task : Task
        What to do.
    options : HalfSetOptions
        Symmetry, search, CTFs.
    rng : Generator
        Displaces the grid and draws the particles of a random re-search.
    threads : int
        CPU threads.
    devices : sequence of int, optional
        CUDA devices: images are searched and refined on all of them, and reconstructed on the current one.

    Returns
    -------
    state : HalfSet
    sums : Reconstruction
        Accumulators in the working box, to ``task.reconstruct_radius``; on the GPU where devices are given.
    """
    to_box = task.box / half.store.box
    improver = _Improver.against(reference, state, half, task, options, rng, threads, devices)
    poses = replace(state.poses.subset(slice(None)), shifts_px=state.poses.shifts_px * to_box)
    improved = replace(state, poses=poses, ctf_change_A=state.ctf_change_A.copy())
    residuals = []
    for rows, images in half.store.blocks(task.reconstruct_radius, together=half.micrographs):
        residuals.append(improver.improve(improved, rows, in_box(images, task.box)))
    measured = Residuals.joined(residuals)
    sigma2 = state.sigma2.copy()
    sigma2[: task.radius + 1] = measured.sigma2
    improved = replace(improved, sigma2=sigma2)
    weights = np.maximum(poses.confidence, _LEAST_WEIGHT) if task.search == "all" else None
    sums = reconstruct(
        improved,
        half,
        task.reconstruct_radius,
        box=task.box,
        symmetry=options.search.symmetry,
        weights=weights,
        gpu=devices is not None,
    )
    scale = state.scale
    if options.refine_scale and not task.grey:
        scale = np.clip(scale * measured.scale / np.median(scale * measured.scale), *_SCALES)
    turned = angular_distance_deg(state.poses.rotations, poses.rotations, options.search.operators)
    back = replace(poses, shifts_px=poses.shifts_px / to_box)
    return replace(improved, poses=back, scale=scale, angle_change_deg=float(np.median(turned))), sums


@dataclass(frozen=True, eq=False)
class _Improver:
    """What an iteration holds against each block of images."""

    task: Task
    options: HalfSetOptions
    parameters: CtfParameters
    micrographs: NDArray[Any] | None
    cube: NDArray[np.complex64]
    chosen: NDArray[np.bool_]
    search: GlobalSearch | None
    devices: Sequence[int] | None

    @classmethod
    def against(
        cls,
        reference: NDArray[np.float32],
        state: HalfSet,
        half: Half,
        task: Task,
        options: HalfSetOptions,
        rng: np.random.Generator,
        threads: int,
        devices: Sequence[int] | None,
    ) -> _Improver:
        """Find the reference's grey scale, choose the particles to search globally, and prepare their search."""
        machine: dict[str, Any] = {"sigma2": state.sigma2, "threads": threads, "devices": devices}
        parameters, n = half.store.parameters, len(half)
        if task.grey:
            some = slice(0, GREY_SAMPLE)
            images = in_box(half.store.block(some, task.radius), task.box)
            sample = with_ctfs(images, parameters.subset(some), state.ctf_change_A[some]).scaled(state.scale[some])
            reference = reference * np.float32(grey_scale(sample, reference, options.search, rng, **machine))
        chosen = np.ones(n, bool)
        if task.search == "weak":
            chosen = (rng.random(n) < task.random_share) | (state.poses.confidence < LOW_CONFIDENCE)
        search = None
        if chosen.any():
            pixels, pixel_size_A = half_plane(task.box, task.radius), half.store.side_A / task.box
            search = GlobalSearch.of_map(reference, pixels, pixel_size_A, options.search, rng, **machine)
        cube = reference_cube(reference, task.radius, threads=threads)
        return cls(task, options, parameters, half.micrographs, cube, chosen, search, devices)

    def improve(self, state: HalfSet, rows: slice, images: ParticleSpectra) -> Residuals:
        """Improve poses and CTFs of a block of the state in place and return what they leave unexplained."""
        parameters = self.parameters.subset(rows)

        def with_state() -> ParticleSpectra:
            """Return the images that decide poses, with the CTFs and scales of the state."""
            changed = with_ctfs(images, parameters, state.ctf_change_A[rows]).scaled(state.scale[rows])
            return changed.crop(self.task.radius)

        used = with_state()
        poses = self._posed(used, state.poses.subset(rows), self.chosen[rows], state.sigma2)
        state.poses.put(rows, poses)
        where = (self.cube, poses.rotations, poses.shifts_px)
        if self.task.defocus:
            state.ctf_change_A[rows] = refine_ctfs(
                images.crop(self.task.radius),
                parameters,
                *where,
                sigma2=state.sigma2,
                options=self.options.ctf,
                micrograph=None if self.micrographs is None else self.micrographs[rows],
                devices=self.devices,
            )
            used = with_state()
        return measure_residuals(used, *where, sigma2=state.sigma2, devices=self.devices)

    def _posed(
        self, images: ParticleSpectra, known: Poses, chosen: NDArray[np.bool_], sigma2: NDArray[np.float64]
    ) -> Poses:
        """Refine poses from where they are, search ``chosen`` ones [n] globally; the better pose wins."""
        result, weak = known, self.task.search == "weak"
        if weak:
            local = refine_poses(images, sigma2, self.cube, known.rotations, known.shifts_px, devices=self.devices)
            result = Poses(local.rotations, local.shifts_px, known.confidence, local.log_likelihood)
        rows = np.flatnonzero(chosen)
        if self.search is None or len(rows) == 0:
            return result
        part = images if len(rows) == len(images) else images.subset(rows)
        found = self.search.best_poses(part, self.cube, result.shifts_px[rows])
        # against zero likelihood before the first search, any pose of a global search is better
        wins = found.log_likelihood > (result.log_likelihood[rows] if weak else -np.inf)
        confidence = result.confidence[rows]
        result.put(rows[wins], found, wins)
        agree = angular_distance_deg(result.rotations[rows], found.rotations, self.options.search.operators) < 1.0
        result.confidence[rows] = np.where(wins | agree, found.confidence, confidence)
        return result


def reconstruct(
    state: HalfSet,
    half: Half,
    radius: int,
    *,
    symmetry: str,
    box: int | None = None,
    weights: NDArray[np.float64] | None = None,
    gpu: bool = False,
) -> Reconstruction:
    """Insert all images of a half set at their poses.

    Parameters
    ----------
    state : HalfSet
        Shifts in px of ``box``.
    half : Half
        The particles.
    radius : int
        Outermost shell.
    symmetry : str
        Point group.
    box : int, optional
        Working box; that of the images by default.
    weights : array [n], optional
        Factor on each image.
    gpu : bool
        Keep the accumulators on the GPU.
    """
    store, parameters = half.store, half.store.parameters
    edge = store.box if box is None else box
    sums = Reconstruction.empty(edge, radius, symmetry=symmetry, expected_slices=len(half), gpu=gpu)
    for rows, images in store.blocks(radius, together=half.micrographs):
        small = images if box is None else in_box(images, box)
        posed = with_ctfs(small, parameters.subset(rows), state.ctf_change_A[rows]).scaled(state.scale[rows])
        poses = state.poses.subset(rows)
        mine = None if weights is None else weights[rows]
        sums.insert(posed, poses.rotations, poses.shifts_px, 1 / state.sigma2, weights=mine)
    return sums


def with_ctfs(images: ParticleSpectra, parameters: CtfParameters, change_A: NDArray[np.float64]) -> ParticleSpectra:
    """Return images that carry the CTFs of ``parameters`` with changes [n, 3] of their own; flipped ones keep their signs."""
    return with_defocus_change(images, parameters, needed_columns(change_A))


def needed_columns(change_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the changes of the mean defocus [n] alone where no astigmatism has changed, else all [n, 3]."""
    return change_A if change_A[:, 1:].any() else change_A[:, 0]
