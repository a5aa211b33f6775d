"""What weakens the amplitudes of an image: exposure, the camera, the border of Fourier space, inelastic scattering.

Exposure fades the particles' amplitudes by ``exp(-N / (2 Nₑ(k)))`` with ``Nₑ(k) = 0.245 k^-1.665 + 2.81 e/Å²`` at
300 kV [1]_, averaged over each frame.

References
----------
.. [1] T. Grant, N. Grigorieff, eLife 4 (2015) e06980, doi:10.7554/eLife.06980.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopipe.config.simulation import SimulateMovies
from cryopipe.simulation.scenery import ICE_MEAN_FREE_PATH_A


def critical_exposure(k: NDArray[np.float64], voltage_kV: float) -> NDArray[np.float64]:
    """Return Nₑ in e/Å² at the frequencies ``k`` (1/Å): 0.8 of the 300 kV value at 200 kV, 0.532 at 100 kV [1]_."""
    scale = float(np.interp(voltage_kV, [100, 200, 300], [0.532, 0.8, 1.0]))
    return np.asarray(scale * (0.245 * np.maximum(k, 1e-6) ** -1.665 + 2.81))


def mean_fading(start_e_A2: float, end_e_A2: float, critical: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return ``exp(-N / (2 Nₑ))`` averaged over exposures N from ``start_e_A2`` to ``end_e_A2``."""
    double = 2 * np.asarray(critical, np.float64)
    faded = np.exp(-start_e_A2 / double) - np.exp(-end_e_A2 / double)
    return np.asarray(double * faded / (end_e_A2 - start_e_A2), np.float32)


def camera_response(frequency: NDArray[np.floating], efficiency: float) -> NDArray[np.float64]:
    """Return the factor of amplitudes, √DQE, at ``frequency`` (1/px): the DQE falls to half at Nyquist."""
    return np.asarray(np.sqrt(efficiency * np.maximum(1 - 2 * np.asarray(frequency, np.float64) ** 2, 0.1)))


def anti_aliasing(frequency: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the factor of particles' amplitudes at ``frequency`` (1/px): 1 up to 0.8 of Nyquist, 0 from Nyquist on.

    Without it their images would ring (a sinc function) beyond the box in which they are drawn.
    """
    t = np.clip((np.asarray(frequency, np.float64) - 0.4) / 0.1, 0, 1)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * t))


def transmission(params: SimulateMovies) -> float:
    """Return the share of electrons that pass ice of mean thickness and the energy filter."""
    return float(np.exp(-params.ice_thickness_A / ICE_MEAN_FREE_PATH_A))
