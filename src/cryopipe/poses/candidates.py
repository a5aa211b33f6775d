"""Candidates of a pose refinement: their state, which of them continue, and the confidence in the best one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from cryopipe.imaging.geometry import angular_distance_deg
from cryopipe.poses.model import ImageModel, PosePrior
from cryopipe.poses.refinement import PoseRefinement

_FIELDS = (
    "rotations", "shifts_px", "scale", "log_likelihood", "covariance", "converged", "defocus_change_A", "offset", "evaluations"
)  # fmt: skip
#: function that refines the images of some rows from poses and shifts, with a model and a prior of these rows
Move = Callable[[np.ndarray, np.ndarray, np.ndarray, ImageModel, PosePrior], PoseRefinement]
#: the radius grows by this factor from stage to stage
_GROWTH = 1.5


class Candidates:
    """m candidate poses of each of n images. ``alive`` [n, m] marks those that are still refined."""

    def __init__(self, rotations: np.ndarray, shifts_px: np.ndarray, model: ImageModel, prior: PosePrior) -> None:
        n, m = rotations.shape[:2]
        self.model, self.prior = model, prior
        self.starts = rotations
        self.alive = np.ones((n, m), bool)
        self.iterations = 0
        self.state: dict[str, np.ndarray] = {
            "rotations": rotations.copy(),
            "shifts_px": shifts_px.copy(),
            "log_likelihood": np.full((n, m), -np.inf),
            "converged": np.zeros((n, m), bool),
        }
        self.parameters: tuple[str, ...] = ()

    def climb(self, which: np.ndarray, move: Move) -> None:
        """Move the candidates ``which`` [n, m], one column at a time."""
        began = "scale" in self.state
        for j in range(which.shape[1]):
            rows = np.flatnonzero(which[:, j])
            if len(rows) == 0:
                continue
            model, prior = self.model.subset(rows), self.prior.subset(rows)
            if prior.rotation_centre is None:
                prior = replace(prior, rotation_centre=self.starts[rows, j])
            if began:
                model = model.starting_from(
                    self.state["scale"][rows, j], self.state["defocus_change_A"][rows, j], self.state["offset"][rows, j]
                )
            run = move(rows, self.state["rotations"][rows, j], self.state["shifts_px"][rows, j], model, prior)
            self._record(run, rows, j)

    def _record(self, run: PoseRefinement, rows: np.ndarray, j: int) -> None:
        self.iterations = max(self.iterations, run.iterations)
        self.parameters = run.parameters
        for name in _FIELDS:
            value = getattr(run, name)
            if name not in self.state:
                self.state[name] = np.zeros((*self.alive.shape, *value.shape[1:]), value.dtype)
            self.state[name][rows, j] = value

    def thin(self, operators: np.ndarray | None, same_deg: float, keep_nats: float) -> None:
        """Drop candidates too far below the best and, if ``same_deg`` > 0, those equal to a better candidate."""
        self.alive = self.contenders(keep_nats)
        likelihood = self.likelihood()
        if same_deg <= 0:
            return
        m = likelihood.shape[1]
        for i in range(m):
            for j in range(m):
                better = (likelihood[:, j] > likelihood[:, i]) | ((likelihood[:, j] == likelihood[:, i]) & (j < i))
                rows = np.flatnonzero(self.alive[:, i] & self.alive[:, j] & better)
                if i == j or len(rows) == 0:
                    continue
                turn = angular_distance_deg(
                    self.state["rotations"][rows, i], self.state["rotations"][rows, j], operators
                )
                apart = np.linalg.norm(self.state["shifts_px"][rows, i] - self.state["shifts_px"][rows, j], axis=1)
                self.alive[rows[(turn < same_deg) & (apart < 0.5)], i] = False

    def contenders(self, keep_nats: float) -> np.ndarray:
        """Return which candidates are alive and within ``keep_nats`` of the best, bool [n, m]. Nothing is changed."""
        likelihood = self.likelihood()
        return self.alive & (likelihood > likelihood.max(axis=1, keepdims=True) - keep_nats)

    def likelihood(self) -> np.ndarray:
        """Return the log-likelihoods [n, m]. Minus infinity for candidates that were dropped at a smaller radius."""
        return np.where(self.alive, self.state["log_likelihood"], -np.inf)

    def best(self) -> tuple[PoseRefinement, np.ndarray]:
        """Return the likeliest candidate of each image, and its number."""
        chosen = self.likelihood().argmax(axis=1)
        row = np.arange(len(chosen))
        best = {name: self.state[name][row, chosen] for name in _FIELDS}
        return PoseRefinement(**best, iterations=self.iterations, parameters=self.parameters), chosen

    def confidence(self, operators: np.ndarray | None, same_deg: float) -> np.ndarray:
        """Return the likelihood of the best candidate over the sum over distinct poses [n]. Each pose counts once."""
        n, m = self.alive.shape
        row = np.arange(n)
        order = np.argsort(-self.likelihood(), axis=1, kind="stable")
        rotations, likelihood = self.state["rotations"][row[:, None], order], self.likelihood()[row[:, None], order]
        total = np.ones(n)
        for j in range(1, m):
            new = np.isfinite(likelihood[:, j])
            for earlier in range(j):
                new &= angular_distance_deg(rotations[:, j], rotations[:, earlier], operators) > same_deg
            total += np.where(new, np.exp(np.where(new, likelihood[:, j] - likelihood[:, 0], 0)), 0)
        return 1 / total


def marching_radii(
    *, start_error_deg: float, diameter_A: float, box: int, pixel_size_A: float, radius: int
) -> list[int]:
    """Return rising radii (Fourier pixels) for candidates that start within ``start_error_deg`` of the truth.

    At the first radius this error is the angular Nyquist, resolution / diameter. From stage to stage the radius grows by
    half. The last radius is below ``radius``, at which the refinement itself ends.

    Parameters
    ----------
    start_error_deg : float
        Largest error of the start poses.
    diameter_A : float
        Particle diameter.
    box : int
        Edge of the images in pixels.
    pixel_size_A : float
    radius : int
        The radius at which the refinement ends, Fourier pixels.
    """
    first = max(4.0, box * pixel_size_A / (diameter_A * np.radians(start_error_deg)))
    radii = []
    while round(first) < radius:
        radii.append(round(first))
        first *= _GROWTH
    return radii


def angular_nyquist_deg(*, diameter_A: float, box: int, pixel_size_A: float, radius: int) -> float:
    """Return resolution / diameter in degrees.

    A rotation by this angle moves the particle's edge by half a resolution element.

    Parameters
    ----------
    diameter_A : float
        Particle diameter.
    box : int
        Edge of the images in pixels.
    pixel_size_A : float
    radius : int
        Radius of the images, Fourier pixels.
    """
    return float(np.degrees(box * pixel_size_A / radius / diameter_A))
