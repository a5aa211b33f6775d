"""The comparison of a reference with each block of images of a half set: it finds their poses, CTFs and residuals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopipe.imaging.fourier_pixels import half_plane
from cryopipe.imaging.geometry import angular_distance_deg
from cryopipe.imaging.optics import CtfParameters
from cryopipe.iteration.global_search import GREY_SAMPLE, GlobalSearch, grey_scale
from cryopipe.iteration.half_set_state import HalfSet, HalfSetOptions, Task
from cryopipe.iteration.halves import Half
from cryopipe.iteration.pose_table import Poses
from cryopipe.iteration.residuals import Residuals, measure_residuals
from cryopipe.kernels.devices import Resources
from cryopipe.poses.ctf import with_defocus_change
from cryopipe.poses.optics_evidence import OpticsEvidence, Standing, optics_evidence
from cryopipe.poses.refine_poses import refine_poses
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import ReferenceMap, reference_cube
from cryopipe.projection.working_box import in_box

#: Below this share of the likelihood a pose counts as ambiguous and is searched again
LOW_CONFIDENCE = 0.5


@dataclass(frozen=True, eq=False)
class Improver:
    """A reference, ready to be compared with blocks of images.

    Attributes
    ----------
    task : Task
    options : HalfSetOptions
    parameters : CtfParameters
        CTFs in the table, for all particles of the half.
    noise : NoiseModel
        Noise model from before the iteration.
    reference : ReferenceMap
    chosen : array bool [n]
        Particles that are searched globally.
    search : GlobalSearch or None
        None if no particle is chosen.
    resources : Resources
        Threads and devices.
    """

    task: Task
    options: HalfSetOptions
    parameters: CtfParameters
    noise: NoiseModel
    reference: ReferenceMap
    chosen: NDArray[np.bool_]
    search: GlobalSearch | None
    resources: Resources

    @classmethod
    def against(
        cls,
        reference: NDArray[np.float32],
        state: HalfSet,
        half: Half,
        task: Task,
        options: HalfSetOptions,
        rng: np.random.Generator,
        resources: Resources,
    ) -> Improver:
        """Find the grey scale of the reference, choose the particles to search globally, and prepare their search.

        Parameters
        ----------
        reference, state, half, task, options, rng, resources
            As for :func:`cryopipe.iteration.half_set.advance`.
        """
        noise = NoiseModel(state.sigma2)
        given: dict[str, Any] = {"noise": noise, "resources": resources}
        parameters, n = half.store.parameters, len(half)
        if task.grey:
            some = slice(0, GREY_SAMPLE)
            images = in_box(half.store.block(some, task.radius), task.box)
            sample = with_ctfs(images, parameters.subset(some), state.ctf_change_A[some]).scaled(state.scale[some])
            base = state.poses.shifts_px[some] * (task.box / half.store.box)
            reference = reference * np.float32(grey_scale(sample, reference, base, options.search, rng, **given))
        chosen = np.ones(n, bool)
        if task.search == "weak":
            chosen = (rng.random(n) < task.random_share) | (state.poses.confidence < LOW_CONFIDENCE)
        search = None
        if chosen.any():
            pixels, pixel_size_A = half_plane(task.box, task.radius), half.store.side_A / task.box
            spread_A = centres_spread_A(state, half)
            search = GlobalSearch.of_map(
                reference, pixels, pixel_size_A, options.search, rng, spread_A=spread_A, **given
            )
        current = ReferenceMap(reference_cube(reference, task.radius, threads=resources.cpu_threads))
        return cls(task, options, parameters, noise, current, chosen, search, resources)

    def improve(self, state: HalfSet, rows: slice, images: ParticleSpectra) -> tuple[Residuals, OpticsEvidence | None]:
        """Improve poses of a block of the state in place. Return the residuals, and the evidence about the optics if needed."""
        changed = with_ctfs(images, self.parameters.subset(rows), state.ctf_change_A[rows])
        used = changed.scaled(state.scale[rows]).crop(self.task.radius)
        poses = self._posed(used, state.poses.subset(rows), self.chosen[rows])
        state.poses.put(rows, poses)
        devices = self.resources.devices
        measured = measure_residuals(
            used, self.noise, self.reference, poses.rotations, poses.shifts_px, devices=devices
        )
        return measured, self._evidence(state, rows, images)

    def _evidence(self, state: HalfSet, rows: slice, images: ParticleSpectra) -> OpticsEvidence | None:
        """Return the evidence of a block about its optics at the poses of the state, or None if optics are not refined."""
        scale = self.options.optics.refine_scale and not self.task.grey
        if not (self.task.defocus or scale):
            return None
        poses = state.poses.subset(rows)
        return optics_evidence(
            images.crop(self.task.radius),
            self.noise,
            self.reference,
            Standing(poses.rotations, poses.shifts_px, state.scale[rows], state.ctf_change_A[rows]),
            self.parameters.subset(rows),
            resources=self.resources,
        )

    def _posed(self, images: ParticleSpectra, known: Poses, chosen: NDArray[np.bool_]) -> Poses:
        """Refine the known poses, search the ``chosen`` images [n] globally, too, and return the better pose of each."""
        result, weak = known, self.task.search == "weak"
        if weak:
            local = refine_poses(
                images, self.noise, self.reference, known.rotations, known.shifts_px, resources=self.resources
            )
            result = Poses(local.rotations, local.shifts_px, known.confidence, local.log_likelihood)
        rows = np.flatnonzero(chosen)
        if self.search is None or len(rows) == 0:
            return result
        part = images if len(rows) == len(images) else images.subset(rows)
        if not weak:
            result.put(rows, self.search.best_poses(part, self.reference, result.shifts_px[rows]))
            return result
        before = result.rotations[rows]
        found = self.search.best_poses(part, self.reference, result.shifts_px[rows], before)
        # the image has contributed to the reference at its known pose, but not at the alternatives
        lead = result.log_likelihood[rows] - self.task.own_nats - found.log_likelihood
        same = angular_distance_deg(before, found.rotations, self.options.search.operators) < 1.0
        sure = 1 / (1 + np.exp(-np.clip(lead, -50, 50)))
        wins = (lead < 0) & ~same
        result.put(rows[wins], found, wins)
        result.confidence[rows] = np.where(
            same, result.confidence[rows], np.where(wins, (1 - sure) * found.confidence, sure)
        )
        return result


def centres_spread_A(state: HalfSet, half: Half) -> float:
    """Return the rms distance (x and y each) of the centres from those of the table. It is infinite before the first search."""
    if not state.poses.confidence.any():
        return np.inf
    moved = state.poses.shifts_px * half.store.pixel_size_A - half.store.centres_A
    return float(np.sqrt(np.mean(np.square(moved))))


def with_ctfs(images: ParticleSpectra, parameters: CtfParameters, change_A: NDArray[np.float64]) -> ParticleSpectra:
    """Return the images with the CTFs of ``parameters`` plus changes [n, 3]. Phase-flipped images keep their signs."""
    return with_defocus_change(images, parameters, needed_columns(change_A))


def needed_columns(change_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the changes of the mean defocus [n] alone if no astigmatism has changed, otherwise all changes [n, 3]."""
    return change_A if change_A[:, 1:].any() else change_A[:, 0]
