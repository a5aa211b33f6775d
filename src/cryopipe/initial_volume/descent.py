"""One mini-batch of a stochastic gradient descent: expectation over all poses, map of the batch, step towards this map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cryopipe.config.declaration.base import require
from cryopipe.config.initial_volume import InitialRelionSgd
from cryopipe.imaging.geometry import random_rotations
from cryopipe.imaging.masks import soft_sphere
from cryopipe.imaging.symmetry import symmetrise_volume
from cryopipe.initial_volume.schedule import Iteration
from cryopipe.iteration.particle_store import ParticleStore
from cryopipe.kernels.devices import Resources
from cryopipe.kernels.slices import extract_slices
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.pose_sums import PoseSums
from cryopipe.projection.references import ReferenceSlices, reference_cube
from cryopipe.projection.working_box import in_box, working_box
from cryopipe.reconstruction.reconstruct import Reconstruction
from cryopipe.search.annealing import temperature_for_spread
from cryopipe.search.exhaustive.search import log_likelihoods, search_poses
from cryopipe.search.grid import orientation_grid, orientation_weights, random_displacement
from cryopipe.search.options import SearchOptions
from cryopipe.search.shifts import ShiftGrid, shift_grid

#: Padding factor of the Fourier cube of the reference, RELION's default (--pad 2). With a larger one interpolation is more
#: exact, but memory grows with its cube.
PADDING = 2
#: Number of particles from whose likelihoods the temperature is found. A choice: more give a better value but take longer.
_TEMPERATURE_SAMPLE = 32
#: Range of the shifts of an iteration, over the rms distance (x and y each) of particles from their centres in the previous
#: iteration. In a normal distribution, 4 % are outside 2.5 standard deviations. If shifts fill the whole disc that is searched,
#: their rms is half of its radius, and the range grows by a quarter per iteration. Thus it cannot stay too small.
SHIFT_REACH = 2.5


@dataclass(frozen=True, eq=False)
class Setting:
    """Settings that do not change during the runs.

    Attributes
    ----------
    symmetry : str
        Point group.
    box : int
        Box of the working map. Its Nyquist frequency is 1.5 times that of the final resolution.
    pixel_size_A : float
        Pixel size of the working map.
    mask : array float32 [box, box, box]
    offset_range_A : float
        Range of the search about the centre of each particle in the table.
    params : InitialRelionSgd
    threads : int
        CPU threads.
    """

    symmetry: str
    box: int
    pixel_size_A: float
    mask: NDArray[np.float32]
    offset_range_A: float
    params: InitialRelionSgd
    threads: int

    @classmethod
    def of_store(cls, store: ParticleStore, params: InitialRelionSgd, *, threads: int) -> Setting:
        """Return working box and mask for particles that are used up to the final resolution."""
        symmetry, diameter, range_A = require(params, "symmetry", "particle_diameter_A", "offset_range_A")
        box = working_box(store.radius, largest=store.box, oversampling=1.5)
        pixel_size_A = store.pixel_size_A * store.box / box
        radius_px = 0.5 * params.mask_diameter_factor * diameter / pixel_size_A
        mask = soft_sphere(box, min(radius_px, box / 2 - 4), edge_px=3.0)
        return cls(symmetry, box, pixel_size_A, mask, range_A, params, threads)

    @property
    def healpix_order(self) -> int:
        """Order of the finest grid of orientations. Runs are compared with this grid."""
        return int(require(self.params, "healpix_order")[0])

    def shifts_px(self, step_A: float, spread_A: float = np.inf) -> NDArray[np.float64]:
        """Return the grid of shifts about the centres. ``spread_A`` is the rms distance (x and y each) of particles from them."""
        range_A = min(self.offset_range_A, max(SHIFT_REACH * spread_A, step_A))
        return shift_grid(range_A / self.pixel_size_A, step_A / self.pixel_size_A)


@dataclass(frozen=True, eq=False)
class Batch:
    """Some particles, as images of the working box, and the shifts that centre them according to the table (px, [n, 2])."""

    images: ParticleSpectra
    centres_px: NDArray[np.float64]

    @classmethod
    def of(cls, store: ParticleStore, rows: NDArray[np.int64], radius: int, setting: Setting) -> Batch:
        """Return some particles of a store.

        Parameters
        ----------
        store : ParticleStore
        rows : array int64 [n]
            Rows of the store.
        radius : int
            Outermost shell, in Fourier pixels.
        setting : Setting
            Working box.
        """
        centres_A = store.centres_A[rows]
        return cls(in_box(store.block(rows, radius), setting.box), centres_A / setting.pixel_size_A)

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Step:
    """Figures of one mini-batch: one row of the history."""

    seed: float
    iteration: float
    resolution_A: float
    batch: float
    inverse_temperature: float
    mean_max_probability: float
    relative_step: float
    shift_spread_A: float
    held_out: float


@dataclass(frozen=True, eq=False)
class DescentState:
    """State of a run between two iterations. The checkpoint holds all of it."""

    iteration: int
    volume: NDArray[np.float32]
    step: NDArray[np.float32]
    sigma2: NDArray[np.float64]
    spread_A: float
    history: list[Step]


def start_state(
    store: ParticleStore,
    setting: Setting,
    first: Iteration,
    rng: np.random.Generator,
    *,
    sigma2: NDArray[np.float64],
) -> DescentState:
    """Reconstruct the first particles in random orientations.

    Parameters
    ----------
    store : ParticleStore
        The training set.
    setting : Setting
        Point group, mask and range of shifts.
    first : Iteration
        The first iteration: radius and size of the batch.
    rng : Generator
        Draws particles and orientations.
    sigma2 : array [shells]
        Noise spectrum at the start.
    """
    chosen = Batch.of(store, np.sort(rng.permutation(len(store))[: first.batch]), first.radius, setting)
    sums = Reconstruction.empty(setting.box, first.radius, symmetry=setting.symmetry, expected_slices=len(chosen))
    sums.insert(chosen.images, random_rotations(rng, len(chosen)), chosen.centres_px, 1 / sigma2)
    volume = _constrain(sums.solve(threads=setting.threads), setting, positive=True)
    return DescentState(0, volume, np.zeros_like(volume), sigma2, np.inf, [])


def iterate(
    state: DescentState, batch: Batch, plan: Iteration, setting: Setting, rng: np.random.Generator
) -> tuple[DescentState, dict[str, float]]:
    """Take one mini-batch: expectation over all poses, Wiener map, momentum step, constraints.

    Parameters
    ----------
    state : DescentState
        Not modified.
    batch : Batch
        The mini-batch, inside the plan's radius.
    plan : Iteration
        Radius, orientation grid and spread of the probabilities.
    setting : Setting
        Point group, mask and range of shifts.
    rng : Generator
        Draws the random displacement of the orientation grid.

    Returns
    -------
    state : DescentState
        New state, with the old history.
    numbers : dict
        ``inverse_temperature``, ``mean_max_probability``, ``relative_step``, ``shift_spread_A``.
    """
    params = setting.params
    grid = orientation_grid(plan.order, setting.symmetry)
    prior = np.log(orientation_weights(grid, setting.symmetry))
    grid = random_displacement(rng, plan.order) @ grid
    images = batch.images
    slices = map_slices(state.volume, images, grid, setting.threads)
    noise, references = NoiseModel(state.sigma2), ReferenceSlices(slices, prior)
    shifts = ShiftGrid(setting.shifts_px(plan.shift_step_A, state.spread_A), base_px=batch.centres_px)
    resources = Resources(threads=setting.threads)
    temperature = 1.0
    if plan.effective_poses > 0:
        some = slice(0, _TEMPERATURE_SAMPLE)
        likelihoods = log_likelihoods(images.subset(some), noise, references, shifts.subset(some), resources=resources)
        temperature = temperature_for_spread(likelihoods, plan.effective_poses, log_prior=prior)
    options = SearchOptions(inverse_temperature=temperature, accumulate=True)
    found = search_poses(images, noise, references, shifts, options=options, resources=resources)
    posed = cast(PoseSums, found.sums)
    sums = Reconstruction.empty(setting.box, plan.radius, symmetry=setting.symmetry, expected_slices=len(grid))
    sums.insert_sums(posed, grid, images.pixels)
    target = sums.solve(ssnr=np.full(plan.radius + 1, 1 / params.regularisation), threads=setting.threads)
    step = params.momentum * state.step + (1 - params.momentum) * params.step_size * (target - state.volume)
    volume = _constrain(state.volume + step, setting, positive=plan.positive)
    sigma2 = state.sigma2.copy()
    ratio = posed.noise_ratio(slices, images.pixels)
    sigma2[: plan.radius + 1] *= params.momentum + (1 - params.momentum) * ratio
    spread_A = setting.pixel_size_A * float(np.sqrt(np.mean(np.square(found.shift_px - batch.centres_px))))
    size = float(np.linalg.norm(volume - state.volume) / max(float(np.linalg.norm(volume)), 1e-30))
    numbers = {
        "inverse_temperature": temperature,
        "mean_max_probability": float(found.max_probability.mean()),
        "relative_step": size,
        "shift_spread_A": spread_A,
    }
    return DescentState(state.iteration + 1, volume, step, sigma2, spread_A, state.history), numbers


def map_slices(
    volume: NDArray[np.float32], images: ParticleSpectra, grid: NDArray[np.float64], threads: int
) -> NDArray[np.complex64]:
    """Return a map in all orientations of a grid [o, 3, 3], on the pixels of images, complex64 [o, K].

    Parameters
    ----------
    volume : array float32 [z, y, x]
    images : ParticleSpectra
    grid : array float64 [o, 3, 3]
    threads : int
        CPU threads.
    """
    pixels = images.pixels
    cube = reference_cube(volume, pixels.radius, padding=PADDING, threads=threads)
    slices: NDArray[np.complex64] = extract_slices(cube, grid, pixels.kx, pixels.ky, padding=PADDING)
    return slices


def _constrain(volume: NDArray[np.float32], setting: Setting, *, positive: bool) -> NDArray[np.float32]:
    if positive:
        volume = np.maximum(volume, 0)
    return symmetrise_volume(volume * setting.mask, setting.symmetry)
