"""The global search of one iteration: a map in all orientations of a displaced grid is compared with blocks of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopipe.imaging.fourier_pixels import FourierPixels
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.iteration.distinct import distinct
from cryopipe.iteration.pose_table import Poses
from cryopipe.iteration.residuals import measure_residuals
from cryopipe.kernels.devices import Resources
from cryopipe.poses.refine_candidates import Contest, refine_candidates
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import ReferenceMap, ReferenceSlices, reference_cube
from cryopipe.search.exhaustive.search import search_poses
from cryopipe.search.grid import (
    angular_step_deg,
    orientation_grid,
    orientation_weights,
    random_displacement,
    rim_step_A,
)
from cryopipe.search.options import SearchOptions
from cryopipe.search.shifts import ShiftGrid, shift_grid

#: Number of images from which the grey scale of a foreign map is found.
GREY_SAMPLE = 150
#: A step of the grid moves the rim of the particle by this share of the finest detail that is compared. In the first search the
#: true pose is at most a third of a period away from a point of the grid, so that this point is on its peak. With a diameter of
#: 125 Å and steps of 7.5°, the detail is 12 Å. In later searches approximate poses are known, and more shells determine poses
#: better: four candidates included 40 % of the lost poses at 12 Å, and 57 % at 8 Å (docs/benchmarks.md).
FIRST_RIM_SHARE = 2 / 3
RIM_SHARE = 1.0
#: Range of the shifts over the rms change (x and y each) of the centres so far. It is at least two steps of the grid.
SHIFT_REACH = 3.0
#: Step of the shifts over the finest period: the continuous refinement starts at most a sixth of this period away.
_SHIFT_SHARE = 1 / 3
#: Number of points of the grid from which each candidate is chosen, and smallest distance of two candidates in steps of the grid.
#: A point has about 20 neighbours within one and a half steps.
_KEPT = 6
_APART = 1.5


@dataclass(frozen=True)
class GlobalOptions:
    """Options of the global search of poses.

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
    diameter_A : float
        Diameter of the particle.
    """

    symmetry: str
    healpix_order: int
    offset_range_A: float
    candidates: int
    diameter_A: float

    def resolution_A(self, *, first: bool) -> float:
        """Return the finest resolution of the search. A step of the grid moves the rim of the particle by a share of it."""
        return rim_step_A(self.healpix_order, self.diameter_A) / (FIRST_RIM_SHARE if first else RIM_SHARE)

    def range_A(self, spread_A: float) -> float:
        """Return the range of shifts for particles whose centres changed by ``spread_A`` (rms, x and y each) so far."""
        return min(self.offset_range_A, SHIFT_REACH * spread_A)

    @property
    def operators(self) -> NDArray[np.float64]:
        """Rotations of the point group."""
        return symmetry_operators(self.symmetry)


@dataclass(frozen=True, eq=False)
class GlobalSearch:
    """The search of an iteration. It is the same for all blocks of images.

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
        Threads, and CUDA devices over which images are spread.
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
        spread_A: float = np.inf,
    ) -> GlobalSearch:
        """Return the search that compares images with a map of the same box.

        Parameters
        ----------
        reference : array float32 [z, y, x]
        pixels : FourierPixels
            Fourier pixels of the images that will be searched.
        pixel_size_A : float
            Pixel size of the map and the images.
        options : GlobalOptions
        rng : Generator
            Draws the displacement of the grid.
        noise : NoiseModel
        resources : Resources
            Threads and devices.
        spread_A : float
            Rms change (x and y each) of the centres of particles so far. It is infinite before the first search.
        """
        side_A, first = pixels.box * pixel_size_A, not np.isfinite(spread_A)
        pixels = pixels.crop(min(pixels.radius, max(round(side_A / options.resolution_A(first=first)), 4)))
        grid = orientation_grid(options.healpix_order, options.symmetry)
        prior = np.log(orientation_weights(grid, options.symmetry))
        grid = random_displacement(rng, options.healpix_order) @ grid
        cube = reference_cube(reference, pixels.radius, threads=resources.cpu_threads)
        references = ReferenceSlices(ReferenceMap(cube).slices(grid, pixels), prior)
        step = _SHIFT_SHARE * pixels.box / pixels.radius
        shifts = shift_grid(max(options.range_A(spread_A) / pixel_size_A, step if first else 2 * step), step)
        return cls(options, pixels.radius, grid, references, shifts, noise, resources)

    def candidates(
        self,
        images: ParticleSpectra,
        base_shifts_px: NDArray[np.float64],
        count: int,
        known: NDArray[np.float64] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the ``count`` best distinct poses of each image: rotations ``[n, m, 3, 3]``, shifts ``[n, m, 2]``.

        Parameters
        ----------
        images : ParticleSpectra
        base_shifts_px : array float64 [n, 2]
            Shifts about which the search is made. The returned shifts include them.
        count : int
        known : array float64 [n, 3, 3], optional
            Known orientations. Poses near them are left out.
        """
        coarse = images.crop(self.radius)
        found = search_poses(
            coarse,
            self.noise,
            self.references,
            ShiftGrid(self.shifts_px, base_px=base_shifts_px),
            options=SearchOptions(candidates=count if count == 1 else _KEPT * count),
            resources=self.resources,
        )
        state = np.where(found.candidate_state >= 0, found.candidate_state, found.best_state[:, None])
        move = np.where(found.candidate_shift >= 0, found.candidate_shift, found.best_shift[:, None])
        apart_deg = _APART * angular_step_deg(self.options.healpix_order)
        rotations = self.grid[state]
        chosen = distinct(rotations, self.options.operators, apart_deg, count, known)
        row = np.arange(len(state))[:, None]
        return rotations[row, chosen], base_shifts_px[:, None, :] + self.shifts_px[move[row, chosen]]

    def best_poses(
        self,
        images: ParticleSpectra,
        reference: ReferenceMap,
        base_shifts_px: NDArray[np.float64],
        known: NDArray[np.float64] | None = None,
    ) -> Poses:
        """Search globally, refine the candidates continuously, and return the best pose of each image.

        The refinement first uses shells up to the radius of the search, and then all shells of the images.

        Parameters
        ----------
        images : ParticleSpectra
        reference : ReferenceMap
            Reference up to the radius of the images.
        base_shifts_px : array float64 [n, 2]
            Shifts about which the search is made.
        known : array float64 [n, 3, 3], optional
            Known orientations. Poses near them are left out.
        """
        rotations, shifts = self.candidates(images, base_shifts_px, self.options.candidates, known)
        best, _, confidence = refine_candidates(
            images,
            self.noise,
            reference,
            rotations,
            shifts,
            contest=Contest(self.options.operators, radii=(self.radius,)),
            resources=self.resources,
        )
        return Poses(best.rotations, best.shifts_px, confidence, best.log_likelihood)


def grey_scale(
    images: ParticleSpectra,
    reference: NDArray[np.float32],
    base_shifts_px: NDArray[np.float64],
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
        Some images (`GREY_SAMPLE` are enough), in the box of the map.
    base_shifts_px : array float64 [n, 2]
        Shifts that centre the images, as far as they are known.
    reference, options, rng, noise, resources
        As for `GlobalSearch.of_map`.
    """
    cube = reference_cube(reference, images.pixels.radius, threads=resources.cpu_threads)
    probe = ReferenceMap(cube).slices(np.eye(3)[None], images.pixels)
    strength = float(np.sum(np.abs(probe) ** 2 / (2 * noise.sigma2[images.pixels.shell])))
    factor = 1 / np.sqrt(max(strength, 1e-30))
    for _ in range(3):
        scaled = reference * np.float32(factor)
        search = GlobalSearch.of_map(
            scaled, images.pixels, images.pixel_size_A, options, rng, noise=noise, resources=resources
        )
        rotations, shifts = search.candidates(images, base_shifts_px, 1)
        current = ReferenceMap(cube * np.float32(factor))
        measured = measure_residuals(images, noise, current, rotations[:, 0], shifts[:, 0], devices=resources.devices)
        factor *= max(measured.grey, 1e-3)
    return float(factor)
