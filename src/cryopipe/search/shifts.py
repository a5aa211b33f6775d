"""Grids of shifts and their priors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.projection.references import log_prior


@dataclass(frozen=True, eq=False)
class ShiftGrid:
    """The shifts that a search tries.

    Attributes
    ----------
    shifts_px : float64 [s, 2]
        Shifts (x, y) in pixels that are applied to an image to centre it (`shift_grid`).
    log_prior : float [s] or [n, s], optional
        Log prior of the shifts (`shift_log_prior`).
    base_px : float64 [n, 2], optional
        Shift that is applied to each image before those of the grid.
    """

    shifts_px: np.ndarray
    log_prior: np.ndarray | None = None
    base_px: np.ndarray | None = None

    def __post_init__(self) -> None:
        shifts = np.asarray(self.shifts_px, np.float64)
        if shifts.ndim != 2 or shifts.shape[1] != 2 or len(shifts) == 0:
            raise InputError(
                f"the shifts have the shape {shifts.shape}, but it must be [s, 2] (x, y) with at least one shift."
            )
        object.__setattr__(self, "shifts_px", shifts)

    def __len__(self) -> int:
        return len(self.shifts_px)

    def subset(self, index: Any) -> ShiftGrid:
        """Return the grid of the images at ``index``."""
        by_image = self.log_prior is not None and np.ndim(self.log_prior) == 2
        prior = np.asarray(self.log_prior)[index] if by_image else self.log_prior
        base = None if self.base_px is None else np.asarray(self.base_px)[index]
        return replace(self, log_prior=prior, base_px=base)

    def bases_px(self, n: int) -> np.ndarray:
        """Return the shift of each of ``n`` images before the grid, float64 [n, 2]. It is zero by default.

        Raises
        ------
        InputError
            The shape is wrong, or a value is not finite.
        """
        base = np.zeros((n, 2)) if self.base_px is None else np.asarray(self.base_px, np.float64)
        if base.shape != (n, 2) or not np.isfinite(base).all():
            raise InputError(
                f"the base shifts have the shape {base.shape}. Give a finite (x, y) for each of {n} images."
            )
        return base

    def shift_log_prior(self, n: int) -> np.ndarray:
        """Return the log prior of the shifts of ``n`` images, float32 [n, s]. It is zero by default."""
        shape = (n, len(self.shifts_px))
        return np.broadcast_to(log_prior(self.log_prior, [shape, shape[1:]], "shift_log_prior"), shape)


def shift_grid(range_px: float, step_px: float) -> np.ndarray:
    """Return the shifts (x, y) in pixels of a square lattice inside a circle, float64 [s, 2], nearest to zero first.

    Range 3 and step 1 give 29 shifts. Range 0 gives only the zero shift.
    """
    if step_px <= 0 or range_px < 0:
        raise InputError(
            f"shift range {range_px} px, step {step_px} px: the range must not be negative, and the step must be positive."
        )
    reach = int(np.floor(range_px / step_px + 1e-9))
    steps = np.arange(-reach, reach + 1)
    y, x = np.meshgrid(steps, steps, indexing="ij")
    inside = x**2 + y**2 <= (range_px / step_px) ** 2 + 1e-9
    x, y = x[inside], y[inside]
    order = np.lexsort((x, y, x**2 + y**2))
    return np.stack([x, y], axis=1)[order] * float(step_px)  # [s, 2]


def shift_log_prior(shifts_px: np.ndarray, sigma_px: float, *, base_shifts_px: np.ndarray | None = None) -> np.ndarray:
    """Return the log of a Gaussian prior over shifts, normalised over the grid, float32 ``[s]`` or ``[n, s]``.

    Parameters
    ----------
    shifts_px : ndarray [s, 2]
        The grid.
    sigma_px : float
        Standard deviation along x and along y.
    base_shifts_px : ndarray [n, 2], optional
        Shift of each image before the grid. The prior is for the sum, and the result has one row per image.
    """
    if not sigma_px > 0:
        raise InputError(f"a shift prior of {sigma_px} px is not possible: the standard deviation must be positive.")
    total = np.asarray(shifts_px, np.float64)
    if base_shifts_px is not None:
        total = np.asarray(base_shifts_px, np.float64)[:, None, :] + total
    log_prior = -(total**2).sum(-1) / (2 * sigma_px**2)
    log_prior -= np.logaddexp.reduce(log_prior, axis=-1, keepdims=True)
    return log_prior.astype(np.float32)
