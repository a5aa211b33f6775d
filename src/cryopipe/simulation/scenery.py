"""What is in a micrograph besides particles: the structure and thickness of the ice, carbon, ice contaminants.

Each of these has two effects. The phase shift (rad) is modulated by the CTF. The loss of inelastically scattered
electrons, which an energy filter removes, is not. Water molecules wander under the beam [1]_, so the fine structure of
the ice changes from frame to frame. This fades Thon rings at high resolution in the sum of the frames, as in real
movies.

References
----------
.. [1] G. McMullan, K. R. Vinothkumar, R. Henderson, Ultramicroscopy 158 (2015) 26, doi:10.1016/j.ultramic.2015.05.017.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryopipe.simulation.potential import (
    FORM_FACTOR_TO_VOLT_A2,
    ICE_MOLECULES_PER_A3,
    carbon_form_factor,
    ice_potential_V,
    water_form_factor,
)

#: Mean free path of inelastic scattering in vitreous ice at 300 kV in Å. Microscopes measure 3000 to 4000 (Rice et al. 2018,
#: doi:10.1016/j.jsb.2018.06.007).
ICE_MEAN_FREE_PATH_A = 3200.0
#: The same of amorphous carbon; its atoms per Å³ (2 g/cm³), mean inner potential, and the usual thickness of a holey film.
CARBON_MEAN_FREE_PATH_A = 1800.0
CARBON_ATOMS_PER_A3 = 0.1
CARBON_POTENTIAL_V = 9.0
CARBON_THICKNESS_A = 120.0
#: Mean square displacement (Å²) of a water molecule along one axis per 1 e/Å²: 1 Å² in three dimensions [1].
_WANDER_A2_PER_E_A2 = 1.0 / 3.0
#: The thickness of the ice varies by this share (rms) over lengths of this standard deviation in Å: the gradients that
#: micrographs of holes show by eye.
_THICKNESS_VARIATION, _THICKNESS_LENGTH_A = 0.07, 500.0


@dataclass(frozen=True)
class Contaminant:
    """A lump of ice on the film: a rounded heap of overlapping caps.

    Attributes
    ----------
    xy_px, radius_px : (float, float), float
        Centre in the frame and radius of the disc that holds it.
    caps : float64 [m, 4]
        x, y from the centre and radius, in pixels, and height in Å of each cap.
    """

    xy_px: tuple[float, float]
    radius_px: float
    caps: NDArray[np.float64]


@dataclass(frozen=True)
class CarbonEdge:
    """The rim of a hole in the carbon film: carbon lies outside the circle ``(x, y, radius)`` in pixels."""

    x_px: float
    y_px: float
    radius_px: float


def structure_factor(k: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the structure factor of amorphous ice: 0.1 at low k (it is stiff), a ring at 3.7 Å, 1 beyond."""
    k = np.asarray(k, np.float64)
    rise = 1 / (1 + np.exp(-(k - 0.22) / 0.02))
    return np.asarray(0.1 + 0.9 * rise + 0.8 * np.exp(-0.5 * ((k - 0.27) / 0.03) ** 2))


def ice_power(k: NDArray[np.float64], thickness_A: float, sigma: float) -> NDArray[np.float64]:
    """Return the power density (rad² Å²) of the phase by the ice's structure at ``k`` (1/Å); ``sigma`` in rad/(V Å)."""
    single = sigma * FORM_FACTOR_TO_VOLT_A2 * water_form_factor(k)
    return np.asarray(ICE_MOLECULES_PER_A3 * thickness_A * single**2 * structure_factor(k))


def wander(k: NDArray[np.float64], dose_e_A2: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the correlation of the ice in neighbouring frames, and the power that wandering leaves within a frame."""
    x = 2 * np.pi**2 * np.asarray(k, np.float64) ** 2 * _WANDER_A2_PER_E_A2 * dose_e_A2
    safe = np.maximum(x, 1e-4)
    left = np.where(x < 1e-4, 1 - x / 3, 2 * (safe - 1 + np.exp(-safe)) / safe**2)
    return np.exp(-x), left


def static_fields(
    shape: tuple[int, int],
    origin_px: tuple[int, int],
    *,
    pixel_size_A: float,
    thickness_A: float,
    sigma: float,
    carbon: CarbonEdge | None,
    contaminants: list[Contaminant],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the phase shift (rad) by ice thickness, carbon and contaminants, and the share of electrons that they remove.

    Parameters
    ----------
    shape : (int, int)
        Size of the field (y, x), which is wider than the frame.
    origin_px : (int, int)
        The frame's first pixel (x, y) in the field.
    pixel_size_A, thickness_A : float
        Å.
    sigma : float
        Interaction parameter, rad/(V Å).
    carbon, contaminants : CarbonEdge or None, list of Contaminant
        In pixels of the frame.
    rng : Generator
        The movie's random numbers.

    Returns
    -------
    phase, loss : float32 [y, x]
    """
    ice = _smooth_noise(shape, _THICKNESS_LENGTH_A / pixel_size_A, rng) * np.float32(_THICKNESS_VARIATION * thickness_A)
    y = (np.arange(shape[0]) - origin_px[1])[:, None].astype(np.float32)
    x = (np.arange(shape[1]) - origin_px[0])[None, :].astype(np.float32)
    for lump in contaminants:
        ice += _heap(lump, x, y)
    phase = ice * np.float32(sigma * ice_potential_V())
    loss = ice / np.float32(ICE_MEAN_FREE_PATH_A)
    if carbon is not None:
        beyond = (np.hypot(x - carbon.x_px, y - carbon.y_px) - carbon.radius_px) * pixel_size_A
        film = 1 / (1 + np.exp(np.clip(-beyond / 6, -30, 30)))  # the film's edge is a few atoms wide
        film = (CARBON_THICKNESS_A * film).astype(np.float32)
        phase += film * np.float32(sigma * CARBON_POTENTIAL_V)
        phase += _carbon_structure(shape, pixel_size_A, sigma, rng) * np.sqrt(film)
        loss += film / np.float32(CARBON_MEAN_FREE_PATH_A)
    return phase, loss


def draw_contaminant(rng: np.random.Generator, size_px: tuple[float, float], pixel_size_A: float) -> Contaminant:
    """Draw a lump of ice of 100 to 250 Å radius anywhere in a frame of ``size_px`` (width, height)."""
    radius = rng.uniform(100, 250) / pixel_size_A
    count = int(rng.integers(4, 9))
    away = radius * np.sqrt(rng.uniform(0, 0.2, count))
    angle = rng.uniform(0, 2 * np.pi, count)
    caps = np.stack(
        [
            away * np.cos(angle),
            away * np.sin(angle),
            radius * rng.uniform(0.35, 0.55, count),
            rng.uniform(0.5, 0.9, count) * radius * pixel_size_A,
        ],
        axis=1,
    )
    xy = rng.uniform(0, size_px[0]), rng.uniform(0, size_px[1])
    return Contaminant((float(xy[0]), float(xy[1])), float(radius), caps)


def draw_carbon_edge(rng: np.random.Generator, size_px: tuple[float, float], pixel_size_A: float) -> CarbonEdge:
    """Draw the rim of a hole of 1.2 µm that covers about a quarter of the frame from one of its sides."""
    radius = 6000.0 / pixel_size_A
    angle = rng.uniform(0, 2 * np.pi)
    size = np.asarray(size_px, np.float64)
    # the rim passes the frame's centre at a quarter of its size
    centre = size / 2 + np.array([np.cos(angle), np.sin(angle)]) * (radius - 0.22 * size.min())
    return CarbonEdge(float(centre[0]), float(centre[1]), float(radius))


def _heap(lump: Contaminant, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    height = np.zeros((y.size, x.size), np.float32)
    for cx, cy, radius, tall in lump.caps:
        squared = ((x - lump.xy_px[0] - cx) ** 2 + (y - lump.xy_px[1] - cy) ** 2) / radius**2
        np.maximum(height, np.float32(tall) * np.sqrt(np.maximum(1 - squared, 0)).astype(np.float32), out=height)
    return height


def _smooth_noise(shape: tuple[int, int], length_px: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return noise of mean 0 and deviation 1 that varies over ``length_px``; periodic."""
    spectrum = scipy.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    spectrum *= np.exp(-2 * (np.pi * length_px) ** 2 * (ky**2 + kx**2)).astype(np.float32)
    spectrum[0, 0] = 0
    field = scipy.fft.irfft2(spectrum, s=shape)
    deviation = float(field.std(dtype=np.float64))
    # a field much smaller than the length has no variation to normalise
    return np.asarray(field / deviation if deviation > 1e-6 else np.zeros(shape), np.float32)


def _carbon_structure(
    shape: tuple[int, int], pixel_size_A: float, sigma: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return the phase shift by the structure of amorphous carbon, for 1 Å of it (power grows with thickness)."""
    spectrum = scipy.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    k = np.hypot(np.fft.fftfreq(shape[0], pixel_size_A)[:, None], np.fft.rfftfreq(shape[1], pixel_size_A))
    single = sigma * FORM_FACTOR_TO_VOLT_A2 * carbon_form_factor(k)
    power = CARBON_ATOMS_PER_A3 * single**2 * structure_factor(k)
    spectrum *= (np.sqrt(power) / pixel_size_A).astype(np.float32)
    return np.asarray(scipy.fft.irfft2(spectrum, s=shape), np.float32)
