"""The result of a pose refinement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryopipe.errors import InputError


@dataclass(frozen=True)
class PoseRefinement:
    """Refined poses, one row per image.

    Attributes
    ----------
    rotations : float64 [n, 3, 3]
    shifts_px : float64 [n, 2]
        Shift (x, y) that centres the image.
    scale : float64 [n]
        Factor of the model (as given, or refined).
    log_likelihood : float64 [n]
        Log-likelihood at the refined pose relative to noise alone, without priors.
    covariance : float64 [n, p, p]
        Inverse Hessian, including priors. Its parameters are wx, wy, wz in radians about the image's axes, tx, ty in px,
        then those of scale, defocus in Å and offset that were refined. An infinite variance means that the image has no
        information on the parameter.
    converged : bool [n]
        True if no further step would gain more than the tolerance.
    iterations : int
        Largest number of evaluations of an image.
    evaluations : int64 [n]
        Number of evaluations of each image.
    defocus_change_A : float64 [n]
        Change that must be added to both defoci of the table.
    offset : float64 [n]
        Grey value of the constant in the image.
    parameters : tuple of str
        Names of the covariance's rows.
    """

    rotations: np.ndarray
    shifts_px: np.ndarray
    scale: np.ndarray
    log_likelihood: np.ndarray
    covariance: np.ndarray
    converged: np.ndarray
    iterations: int
    evaluations: np.ndarray
    defocus_change_A: np.ndarray
    offset: np.ndarray
    parameters: tuple[str, ...]

    def angle_sd_deg(self) -> np.ndarray:
        """Return the standard error of the orientation in degrees [n]: the root of the sum of its three variances."""
        return np.degrees(np.sqrt(np.trace(self.covariance[:, :3, :3], axis1=1, axis2=2)))

    def shift_sd_px(self) -> np.ndarray:
        """Return the standard error of the shift per axis, px, [n]."""
        return np.sqrt(np.trace(self.covariance[:, 3:5, 3:5], axis1=1, axis2=2) / 2)

    def sd(self, parameter: str) -> np.ndarray:
        """Return the standard error of one of ``parameters``, [n] (angles in radians)."""
        if parameter not in self.parameters:
            raise InputError(f"{parameter} was not refined. Refined parameters are {', '.join(self.parameters)}.")
        at = self.parameters.index(parameter)
        return np.sqrt(self.covariance[:, at, at])
