"""The stated error of a fitted defocus, from the scatter between sectors of the spectrum.

A fit ends where the sum of the pulls of all points of the spectrum is zero. Pulls are derivatives of the score by z, a, b and,
if it is free, the phase shift. The noise of sectors is independent. So the scatter of their pulls gives the scatter of the sum,
and with the curvature of the score this gives the error of the defocus: H⁻¹ (Σ gₛ gₛᵀ) H⁻¹ (Huber 1967; White 1982,
doi:10.2307/1912526, the "sandwich"). This needs no model of the noise. A background that is wrong in the same way at all
azimuths does not count, because it gives all sectors the same pull. This part is a bias, not a random error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np

from cryopipe.ctf.defocus import Defocus

#: Value in a table if an estimator gave none. No quantity of a CTF is as small, and STAR files cannot contain NaN.
MISSING = -9999.0
#: Standard deviations of a defocus, in the order of `DefocusError`.
ERROR_COLUMNS = (
    "crpCtfDefocusUError",
    "crpCtfDefocusVError",
    "crpCtfDefocusAngleError",
    "crpCtfDefocusMeanError",
    "crpCtfAstigmatismError",
)
#: Number of sectors over 180°. A choice: 24 sectors give the error to 16 %, and at 8 Å each is still 12 pixels wide, so that
#: their noise is independent.
SECTORS = 24
#: Range to both sides over which the curvature is measured, as a phase at the finest point. On weak simulated micrographs (rings
#: to 4-5 Å) errors were 1.9 times too small with 0.1 rad, and 1.2 times with 0.3 rad. Beyond 0.5 rad the score is not a parabola.
_RANGE_RAD = 0.35
#: Standard deviation of an unknown angle, which is uniform over 180°.
_UNKNOWN_DEG = 180.0 / np.sqrt(12.0)


@dataclass(frozen=True)
class DefocusError:
    """Standard deviations of a fitted defocus.

    Attributes
    ----------
    u_A, v_A : float
        Errors of the larger and of the smaller defocus, Å.
    angle_deg : float
        Error of the direction of U, degrees.
    mean_A : float
        Error of the mean defocus, Å.
    astigmatism_A : float
        Error of each of the two components a and b of the astigmatism (`cryopipe.ctf.defocus`), Å.
    """

    u_A: float
    v_A: float
    angle_deg: float
    mean_A: float
    astigmatism_A: float


def sector_of(cos2: np.ndarray, sin2: np.ndarray) -> np.ndarray:
    """Return the number of the sector of each point, from the cosine and sine of twice its azimuth ``[n]``."""
    azimuth = 0.5 * np.arctan2(sin2, cos2) % np.pi
    return np.minimum((azimuth * (SECTORS / np.pi)).astype(int), SECTORS - 1)


def sector_sums(pulls: np.ndarray, sectors: np.ndarray) -> np.ndarray:
    """Return the sums ``[SECTORS, p]`` of ``pulls`` ``[n, p]`` over the sectors."""
    return np.stack([np.bincount(sectors, weights=column, minlength=SECTORS) for column in pulls.T], axis=1)


def fit_influences(
    pulls: Callable[[Defocus], np.ndarray], at: Defocus, *, free: int, sectors: np.ndarray, rad_per_A: float
) -> np.ndarray | None:
    """Return :func:`influences` of a fit, with the curvature of its score over a range in which noise averages out.

    Near its maximum the score is sharper than on average, because of noise. The weaker the rings, the larger is this effect.

    Parameters
    ----------
    pulls : callable
        Returns the pulls ``[n, free]`` of all points at a defocus, by z, a, b and the phase shift.
    at : Defocus
        The fitted defocus.
    free : int
        3 (z, a, b) or 4 (also the phase shift).
    sectors : ndarray ``[n]``
        :func:`sector_of` of the points.
    rad_per_A : float
        Change of the phase at the finest point by 1 Å of defocus, π λ k².
    """
    steps = _RANGE_RAD * np.array([1.0 / rad_per_A] * 3 + [1.0])[:free]
    return influences(sector_sums(pulls(at), sectors), numerical_curvature(pulls, at, steps))


def numerical_curvature(pulls: Callable[[Defocus], np.ndarray], at: Defocus, steps: np.ndarray) -> np.ndarray:
    """Return minus the derivative ``[free, free]`` of the summed pulls over ± ``steps`` ``[free]`` of z, a, b, phase shift."""
    columns = []
    for j, step in enumerate(steps):
        ends = []
        for side in (-1.0, 1.0):
            p = np.array([at.mean_A, at.a_A, at.b_A, at.phase_shift_rad])
            p[j] += side * step
            ends.append(pulls(Defocus(*(float(x) for x in p))).sum(axis=0))
        columns.append((ends[0] - ends[1]) / (2.0 * step))
    curvature = np.stack(columns, axis=1)
    result: np.ndarray = 0.5 * (curvature + curvature.T)
    return result


def influences(sums: np.ndarray, curvature: np.ndarray) -> np.ndarray | None:
    """Return by how much each sector moves the fit ``[SECTORS, 3]`` (z, a, b), or None if the score has no maximum there.

    Parameters
    ----------
    sums : ndarray ``[SECTORS, p]``
        Pulls of the sectors by z, a, b and further parameters.
    curvature : ndarray ``[p, p]``
        Minus the second derivatives of the score.
    """
    scale = np.sqrt(np.maximum(np.diag(curvature), 1e-300))
    scaled = curvature / scale[:, None] / scale[None, :]
    if not np.isfinite(scaled).all() or np.linalg.eigvalsh(scaled)[0] < 1e-9:
        return None
    moves: np.ndarray = np.linalg.solve(scaled, ((sums - sums.mean(axis=0)) / scale).T).T / scale
    return moves[:, :3]


def defocus_error(moves: np.ndarray | None, at: Defocus) -> DefocusError | None:
    """Return the errors that follow from :func:`influences`, or None if there are none."""
    if moves is None:
        return None
    return error_of(moves.T @ moves * (SECTORS / (SECTORS - 3.0)), at)


def error_of(covariance: np.ndarray, at: Defocus) -> DefocusError:
    """Return the errors of a defocus whose z, a, b have this covariance ``[3, 3]`` (Å²)."""
    length = float(np.hypot(at.a_A, at.b_A))
    axis = np.array([at.a_A, at.b_A]) / length if length > 0 else np.array([1.0, 0.0])
    astigmatism = float(np.sqrt(0.5 * np.trace(covariance[1:, 1:])))
    u, v = (float(np.sqrt(c @ covariance @ c)) for c in (np.r_[1.0, axis], np.r_[1.0, -axis]))
    angle = np.degrees(0.5 * astigmatism / length) if length > 0 else _UNKNOWN_DEG
    return DefocusError(u, v, float(min(angle, _UNKNOWN_DEG)), float(np.sqrt(covariance[0, 0])), astigmatism)


def error_columns(error: DefocusError | None) -> dict[str, float]:
    """Return the values of `ERROR_COLUMNS`. Without an error they are `MISSING`."""
    return dict(zip(ERROR_COLUMNS, [MISSING] * len(ERROR_COLUMNS) if error is None else astuple(error), strict=True))
