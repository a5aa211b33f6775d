"""To which resolution two CTFs of one micrograph agree, and their average as tensors.

Two CTFs are useful together up to the frequency where their phases differ by 90° (Marabini et al. 2015, J. Struct.
Biol. 190:348, doi:10.1016/j.jsb.2015.04.003; xmipp ``errorMaxFreqCTFs2D``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryopipe.ctf.model import Defocus, Microscope, phase

_AZIMUTHS = 360
_RADII = 4096
_LEGACY_GRID = 256


@dataclass(frozen=True)
class Agreement:
    """Resolutions in Å to which two CTFs agree.

    Attributes
    ----------
    crossing_A : float
        First frequency, over all azimuths, where the phases differ by 90°; twice the pixel size where they never do.
    area_A : float
        Radius of the disc as large as the area in which they differ by less.
    legacy_linear_A : float
        xmipp's value: that area, as a share of the Nyquist disc, times the Nyquist frequency (depends on the pixel
        size).
    """

    crossing_A: float
    area_A: float
    legacy_linear_A: float


def agreement(first: tuple[Defocus, Microscope], second: tuple[Defocus, Microscope], pixel_size_A: float) -> Agreement:
    """Compare two CTFs (defocus and microscope of each) up to the Nyquist frequency of ``pixel_size_A``.

    ``crossing_A`` and ``area_A`` use the full phases, with phase shift, amplitude contrast and Cs; ``legacy_linear_A``
    compares the defoci alone on a grid of 256 x 256 digital frequencies, as xmipp does.
    """
    nyquist = 0.5 / pixel_size_A
    theta = np.pi * np.arange(_AZIMUTHS) / _AZIMUTHS
    k = nyquist * np.arange(1, _RADII + 1) / _RADII
    difference = np.abs(_chi(*first, theta, k) - _chi(*second, theta, k))  # [azimuth, radius]
    apart = difference >= 0.5 * np.pi
    start = np.where(apart.any(axis=1), apart.argmax(axis=1), _RADII - 1)
    worst = int(start.min())
    crossing = k[worst]
    if apart.any() and worst > 0:
        row = difference[int(start.argmin())]
        crossing = np.interp(0.5 * np.pi, row[worst - 1 : worst + 1], k[worst - 1 : worst + 1])
    share = float((~apart @ k).mean() / k.sum())
    return Agreement(
        crossing_A=float(1.0 / crossing),
        area_A=float(1.0 / (nyquist * np.sqrt(max(share, 1.0 / _RADII**2)))),
        legacy_linear_A=_legacy_linear_A(first, second, pixel_size_A),
    )


def _chi(defocus: Defocus, microscope: Microscope, theta: np.ndarray, k: np.ndarray) -> np.ndarray:
    local = defocus.mean_A + defocus.a_A * np.cos(2 * theta) + defocus.b_A * np.sin(2 * theta)
    return phase((k**2)[None, :], local[:, None], microscope, defocus.phase_shift_rad)


def _legacy_linear_A(
    first: tuple[Defocus, Microscope], second: tuple[Defocus, Microscope], pixel_size_A: float
) -> float:
    a, b = first[0], second[0]
    axis = np.fft.fftfreq(_LEGACY_GRID, pixel_size_A)
    kx, ky = axis[None, :], axis[:, None]
    k2 = kx**2 + ky**2
    # (z, a, b) are linear in the defocus, so Δ k² needs no angle
    local = (a.mean_A - b.mean_A) * k2 + (a.a_A - b.a_A) * (kx**2 - ky**2) + (a.b_A - b.b_A) * 2.0 * kx * ky
    near = int((np.abs(np.pi * first[1].wavelength_A * local) < 0.5 * np.pi).sum())
    share = min(1.0, near / (np.pi * _LEGACY_GRID**2 / 4.0))
    return float(2.0 * pixel_size_A / max(share, 1e-9))


def mean_defocus(defoci: Sequence[Defocus]) -> Defocus:
    """Return the average of the defoci as tensors (z, a, b each), of phase shifts on the circle of period 180°."""
    z, a, b = np.mean([(d.mean_A, d.a_A, d.b_A) for d in defoci], axis=0)
    twice = np.mean([np.exp(2j * d.phase_shift_rad) for d in defoci])
    return Defocus(float(z), float(a), float(b), float(0.5 * np.angle(twice) % np.pi))


def angle_difference_deg(first_deg: float, second_deg: float) -> float:
    """Return the difference of two axes' directions, 0..90°."""
    difference = abs(first_deg - second_deg) % 180.0
    return min(difference, 180.0 - difference)
