"""The state of a refinement between two iterations. Its checkpoint holds this state, and a killed job goes on from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryopipe.iteration.gold_standard import Pair


@dataclass(frozen=True)
class Iteration:
    """Figures of one iteration: one row of the history."""

    iteration: float
    radius: float
    fsc143_A: float
    masked: float
    median_angle_change_deg: float
    mean_confidence: float
    median_defocus_change_A: float
    median_astigmatism_change_A: float
    defocus_prior_A: float
    micrograph_defocus_prior_A: float
    astigmatism_prior_A: float
    scale_prior: float
    micrograph_scale_prior: float
    start_A: float


@dataclass(frozen=True, eq=False)
class Progress:
    """The refinement between two iterations.

    Attributes
    ----------
    iteration : int
        Iterations done.
    radius : int
        Number of shells that the next iteration uses for poses.
    pair : Pair
        Both half sets.
    history : list of Iteration
    settled : bool
        Whether the last iteration neither gained a shell nor moved poses.
    reviewed : int
        The iteration that searched all particles again once poses had come to rest; 0 before it.
    """

    iteration: int
    radius: int
    pair: Pair
    history: list[Iteration]
    settled: bool
    reviewed: int

    @property
    def resolution_A(self) -> float:
        """Resolution of the last iteration; infinite before the first."""
        return self.history[-1].fsc143_A if self.history else np.inf
