"""The schedule of a classification: resolution, angles, shifts and temperature of each iteration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryopipe.config.classes2d import Classify2d


@dataclass(frozen=True)
class Stage:
    """Settings of one iteration.

    Attributes
    ----------
    resolution_A : float
        Finest resolution that is compared.
    n_psi : int
        Number of in-plane angles.
    shift_range_A, shift_step_A : float
        Grid of shifts.
    around_best : bool
        Whether the grid is around the last shift of each particle instead of its prior one.
    spread : float or None
        Share of states over which annealing spreads the posterior. None: no annealing.
    revive : bool
        Whether empty classes get new particles.
    """

    resolution_A: float
    n_psi: int
    shift_range_A: float
    shift_step_A: float
    around_best: bool
    spread: float | None
    revive: bool


def class_count(particles: int, wanted: int | None) -> int:
    """Return the number of classes: ``wanted``, or one per 40 particles, at least 8 (4 below 80 particles), at most 50."""
    if wanted is not None:
        return min(wanted, particles)
    return min(max(4 if particles < 80 else 8, particles // 40), 50, particles)


def make_schedule(params: Classify2d, diameter_A: float, offset_range_A: float) -> list[Stage]:
    """Return one `Stage` per iteration, and that of the final pass at the end.

    The resolution grows linearly in frequency over the first two thirds. A step of psi moves the rim of the particle by
    about the resolution: n_psi = 2π · (D/2) / resolution, at least 24, and twice as many in the final pass. Shifts are
    searched in a wide range around the pick at first, then around the best shift of each particle.
    """
    stages = []
    count = params.iterations
    ramp = max(1, round(0.3 * params.uncertainty * count))
    march = max(1, round(2 * count / 3))
    first, last = 1.0 / params.start_resolution_A, 1.0 / params.max_resolution_A
    last_spread = 2e-5
    for i in range(count):
        resolution = 1.0 / (first + (last - first) * min(i / march, 1.0))
        wide = i < 0.6 * ramp  # with fine steps a wide search would be expensive and find nothing new
        spread = params.initial_spread * (last_spread / params.initial_spread) ** (i / ramp) if i < ramp else None
        step = max(0.25 * resolution, 2.0)
        reach = offset_range_A if wide else 2.5 * step
        stages.append(
            Stage(
                resolution,
                _angles(diameter_A, resolution, 24),
                reach,
                min(step, max(reach, 0.5)),
                not wide,
                spread,
                i < 0.8 * count,
            )
        )
    fine = max(0.2 * params.max_resolution_A / 2, 0.5)
    stages.append(
        Stage(
            params.max_resolution_A,
            _angles(diameter_A, params.max_resolution_A / 1.6, 36),
            2.0 * fine,
            fine,
            True,
            None,
            False,
        )
    )
    return stages


def _angles(diameter_A: float, resolution_A: float, least: int) -> int:
    return max(least, 4 * round(np.pi * diameter_A / resolution_A / 4))
