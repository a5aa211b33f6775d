"""The precision of rotations and shifts of particles against an average: RELION's two accuracies."""

from __future__ import annotations

import numpy as np

from cryopipe.classes2d.rotation import grids_of_images, make_rotator
from cryopipe.imaging.fourier_pixels import FourierPixels
from cryopipe.projection.phases import phase_table

#: Expected log-likelihood difference at which two poses are distinguished with 99 % probability (RELION: ln 99 = 4.595).
DECISION = float(np.log(99.0))
_ANGLES_DEG = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_SHIFTS_PX = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def class_precision(
    averages: np.ndarray, pixels: FourierPixels, information: np.ndarray, pixel_size_A: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest rotation (°) and shift (Å) that a particle of each class shows with 99 % probability.

    Parameters
    ----------
    averages : float32 ``[classes, b, b]``
    pixels : FourierPixels
    information : float ``[K]``
        Mean of C²/σ² over the particles.
    pixel_size_A : float

    Returns
    -------
    degrees, angstrom : float64 ``[classes]``
        They are 30° and 8 px if the particle does not show even these.
    """
    one = make_rotator(pixels, 1)
    grids = grids_of_images(averages, one.radius)
    still = one.references(grids)
    turned = np.stack(
        [_distance(make_rotator(pixels, 1, offset_deg=a).references(grids) - still, information) for a in _ANGLES_DEG]
    )
    phases = phase_table(pixels, np.array([[s, 0.0] for s in _SHIFTS_PX]))
    moved = np.stack([_distance(still * ramp - still, information) for ramp in phases])
    return _crossing(turned, _ANGLES_DEG), _crossing(moved, _SHIFTS_PX) * pixel_size_A


def _distance(difference: np.ndarray, information: np.ndarray) -> np.ndarray:
    return 0.5 * np.square(np.abs(difference)).astype(np.float64) @ information


def _crossing(curves: np.ndarray, values: tuple[float, ...]) -> np.ndarray:
    """Interpolate in logarithms where each column of ``curves`` [values, classes] reaches `DECISION`."""
    logs = np.log(np.maximum(np.maximum.accumulate(curves, axis=0), 1e-12))
    grid = np.log(values)
    found = [
        np.interp(np.log(DECISION), logs[:, c], grid, left=grid[0], right=grid[-1]) for c in range(curves.shape[1])
    ]
    return np.exp(np.array(found))
