"""The global search of one iteration: a map in all orientations of a displaced grid is compared with blocks of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopipe.imaging.fourier_pixels import FourierPixels
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.iteration.pose_table import Poses
from cryopipe.iteration.residuals import measure_residuals
from cryopipe.kernels.devices import Resources
from cryopipe.poses.refine_candidates import Contest, refine_candidates
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import ReferenceMap, ReferenceSlices, reference_cube
from cryopipe.search.exhaustive.search import search_poses
from cryopipe.search.grid import orientation_grid, orientation_weights, random_displacement
from cryopipe.search.options import SearchOptions
from cryopipe.search.shifts import ShiftGrid, shift_grid

#: Number of images from which the grey scale of a foreign map is found.
GREY_SAMPLE = 150


@dataclass(frozen=True)
class GlobalOptions:
    """How poses are searched globally.

    Attributes
    ----------
    symmetry : str
        Point group.
    healpix_order : int
        Order of the grid of orientations (60°/2^order).
    offset_range_A : float
        Range of shifts about the last shift of each image.
    candidates : int
        Number of poses per image that go on to continuous refinement.
    resolution_A : float
        Finest resolution of the search. Details finer than 12 Å would need a finer grid than order 3: a rotation by
        7.5° moves the rim of a particle of 125 Å by 8 Å.
    """

    symmetry: str
    healpix_order: int
    offset_range_A: float
    candidates: int
    resolution_A: float = 12.0

    @property
    def operators(self) -> NDArray[np.float64]:
        """Rotations of the point group."""
        return symmetry_operators(self.symmetry)


@dataclass(frozen=True, eq=False)
class GlobalSearch:
    """A search that is the same for all blocks of an iteration.

    Attributes
    ----------
    options : GlobalOptions
    radius : int
        Outermost shell that is compared.
    grid : array float64 [o, 3, 3]
        Orientations, displaced.
    references : ReferenceSlices
        The map in these orientations, and their prior.
    shifts_px : array float64 [s, 2]
    noise : NoiseModel
    resources : Resources
        Threads; CUDA devices over which images are spread.
    """

    options: GlobalOptions
    radius: int
    grid: NDArray[np.float64]
    references: ReferenceSlices
    shifts_px: NDArray[np.float64]
    noise: NoiseModel
    resources: Resources

    @classmethod
    def of_map(
        cls,
        reference: NDArray[np.float32],
        pixels: FourierPixels,
        pixel_size_A: float,
        options: GlobalOptions,
        rng: np.random.Generator,
        *,
        noise: NoiseModel,
        resources: Resources,
    ) -> GlobalSearch:
        """Return the search that compares images with a map of the same box.

        Parameters
        ----------
        reference : array float32 [z, y, x]
        pixels : FourierPixels
            Fourier pixels of the images that will be searched.
        pixel_size_A : float
            Of the map and the images.
        options : GlobalOptions
        rng : Generator
            Displaces the grid.
        noise : NoiseModel
        resources : Resources
            Threads and devices.
        """
        side_A = pixels.box * pixel_size_A
        pixels = pixels.crop(min(pixels.radius, max(round(side_A / options.resolution_A), 4)))
        grid = orientation_grid(options.healpix_order, options.symmetry)
        prior = np.log(orientation_weights(grid, options.symmetry))
        grid = random_displacement(rng, options.healpix_order) @ grid
        cube = reference_cube(reference, pixels.radius, threads=resources.cpu_threads)
        references = ReferenceSlices(ReferenceMap(cube).slices(grid, pixels), prior)
        # steps of a third of the finest period: the continuous refinement starts at most a sixth of it away
        step = pixels.box / pixels.radius / 3
        shifts = shift_grid(max(options.offset_range_A / pixel_size_A, step), step)
        return cls(options, pixels.radius, grid, references, shifts, noise, resources)

    def candidates(
        self, images: ParticleSpectra, base_shifts_px: NDArray[np.float64], count: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the ``count`` best poses of each image: rotations ``[n, m, 3, 3]``, total shifts ``[n, m, 2]``."""
        coarse = images.crop(self.radius)
        found = search_poses(
            coarse,
            self.noise,
            self.references,
            ShiftGrid(self.shifts_px, base_px=base_shifts_px),
            options=SearchOptions(candidates=count),
            resources=self.resources,
        )
        state = np.where(found.candidate_state >= 0, found.candidate_state, found.best_state[:, None])
        move = np.where(found.candidate_shift >= 0, found.candidate_shift, found.best_shift[:, None])
        return self.grid[state], base_shifts_px[:, None, :] + self.shifts_px[move]

    def best_poses(
        self, images: ParticleSpectra, reference: ReferenceMap, base_shifts_px: NDArray[np.float64]
    ) -> Poses:
        """Search globally, refine the candidates continuously to the images' radius, and return the best of each."""
        rotations, shifts = self.candidates(images, base_shifts_px, self.options.candidates)
        best, _, confidence = refine_candidates(
            images,
            self.noise,
            reference,
            rotations,
            shifts,
            contest=Contest(self.options.operators),
            resources=self.resources,
        )
        return Poses(best.rotations, best.shifts_px, confidence, best.log_likelihood)


def grey_scale(
    images: ParticleSpectra,
    reference: NDArray[np.float32],
    options: GlobalOptions,
    rng: np.random.Generator,
    *,
    noise: NoiseModel,
    resources: Resources,
) -> float:
    """Return the factor that brings a map of unknown grey scale to the scale of the images.

    Poses are found with the present factor. Then least squares at these poses gives the next factor. This is done three
    times, from a first factor that makes the map weak (poses then depend on the cross term alone).

    Parameters
    ----------
    images : ParticleSpectra
        Some images (`GREY_SAMPLE` are enough), in the map's box.
    reference, options, rng, noise, resources
        As for `GlobalSearch.of_map`.
    """
    base = np.zeros((len(images), 2))
    cube = reference_cube(reference, images.pixels.radius, threads=resources.cpu_threads)
    probe = ReferenceMap(cube).slices(np.eye(3)[None], images.pixels)
    strength = float(np.sum(np.abs(probe) ** 2 / (2 * noise.sigma2[images.pixels.shell])))
    factor = 1 / np.sqrt(max(strength, 1e-30))
    for _ in range(3):
        scaled = reference * np.float32(factor)
        search = GlobalSearch.of_map(
            scaled, images.pixels, images.pixel_size_A, options, rng, noise=noise, resources=resources
        )
        rotations, shifts = search.candidates(images, base, 1)
        current = ReferenceMap(cube * np.float32(factor))
        measured = measure_residuals(images, noise, current, rotations[:, 0], shifts[:, 0], devices=resources.devices)
        factor *= max(measured.grey, 1e-3)
    return float(factor)
