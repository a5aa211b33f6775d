"""The schedule of a stochastic gradient descent: resolution, batch size, grid and temperature of each iteration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopipe.config.declaration.base import require
from cryopipe.config.initial_volume import InitialRelionSgd
from cryopipe.search.grid import order_for

#: the step of the orientation grid moves the border of the particle by at most this share of the resolution of the iteration. A
#: step of 7.5° moves the border of ferritin by 8.2 Å, and a resolution of 10 Å finds its views (docs/benchmarks.md)
RIM_SHARE = 0.85
#: step of the shift grid over the resolution: a shift is then wrong by at most a fifth of the finest period
SHIFT_SHARE = 0.4
#: effective share of poses at the end of annealing, and the share of all iterations that annealing takes
FINAL_EFFECTIVE_POSES = 1e-4
ANNEALING_SHARE = 0.6


@dataclass(frozen=True)
class Iteration:
    """Settings of one iteration.

    Attributes
    ----------
    radius : int
        Outermost shell in Fourier pixels.
    batch : int
        Number of particles.
    start : int
        Number of particles that previous iterations have used.
    order : int
        HEALPix order of the orientation grid.
    shift_step_A : float
        Step of the grid of shifts.
    effective_poses : float
        Share of poses over which a particle is spread. 0 means no annealing.
    positive : bool
        Whether negative density is removed.
    """

    radius: int
    batch: int
    start: int
    order: int
    shift_step_A: float
    effective_poses: float
    positive: bool


def schedule(params: InitialRelionSgd, *, particles: int, side_A: float, largest_radius: int) -> list[Iteration]:
    """Return all iterations of a run.

    Parameters
    ----------
    params : InitialRelionSgd
        Numbers of iterations, resolutions, batch sizes.
    particles : int
        Size of the training set, which bounds the batches.
    side_A : float
        Side of the particle images in Å.
    largest_radius : int
        Largest radius (Nyquist).
    """
    resolutions_A = require(params, "initial_resolution_A", "final_resolution_A")
    diameter_A, finest = require(params, "particle_diameter_A", "healpix_order")
    first, last = (min(round(side_A / resolution_A), largest_radius) for resolution_A in resolutions_A)
    total = params.initial_iterations + params.inbetween_iterations + params.final_iterations
    iterations: list[Iteration] = []
    start = 0
    for i in range(total):
        share = float(np.clip((i - params.initial_iterations) / params.inbetween_iterations, 0, 1))
        radius = round(first + share * (last - first))
        batch = min(round(params.initial_batch + share * (params.final_batch - params.initial_batch)), particles)
        resolution_A = side_A / radius
        progress = i / (ANNEALING_SHARE * total)
        spread = 0.0
        if params.initial_effective_poses > 0 and progress < 1:
            spread = (
                params.initial_effective_poses * (FINAL_EFFECTIVE_POSES / params.initial_effective_poses) ** progress
            )
        iterations.append(
            Iteration(
                radius,
                batch,
                start,
                order_for(resolution_A, diameter_A, share=RIM_SHARE, finest=finest),
                SHIFT_SHARE * resolution_A,
                spread,
                positive=i < params.positive_share * total,
            )
        )
        start += batch
    return iterations


def draw_batch(iteration: Iteration, permutations: dict[int, NDArray[np.int64]], particles: int) -> NDArray[np.int64]:
    """Return the sorted rows of a mini-batch. Epochs are permutations, used one after the other without replacement.

    ``permutations`` has the permutation of each epoch from which the batch takes particles, by epoch number.
    """
    places = range(iteration.start, iteration.start + iteration.batch)
    rows = np.array([permutations[p // particles][p % particles] for p in places])
    return np.unique(rows)
