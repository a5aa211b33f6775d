"""The core density of each single particle, which distinguishes iron-loaded from empty ferritin.

The model of an image is X = C · (a · E + c · B) + n in Fourier space. E is the rotational average of the empty classes. B is
the projection of a ball in the centre of the particle with the density of the shell. Both are rotationally symmetric, so no
angle is needed. Weighted least squares gives c, in units of the density of the shell, and its standard error. Empty particles
have c near 0, and an iron core is some three times as dense as protein. Known limit: the particles must be hollow and nearly
round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cryopipe.classes2d.particle_stack import ParticleStack
from cryopipe.imaging.fourier import rfft2_centred
from cryopipe.projection.phases import shift_values


@dataclass(frozen=True, eq=False)
class CoreDensity:
    """Density of each core over that of the shell ``[n]``, its standard error, and the fitted scale of the empty particle."""

    density: np.ndarray
    error: np.ndarray
    scale: np.ndarray


def ball_projection(frequency: np.ndarray, radius_A: float) -> np.ndarray:
    """Return the Fourier transform (Å³, float64) of a ball of density one at frequencies in 1/Å."""
    x = 2.0 * np.pi * radius_A * np.asarray(frequency, dtype=np.float64)
    small = x < 0.1
    safe = np.where(small, 1.0, x)
    shape = np.where(small, 1.0 / 3.0 - x**2 / 30.0, (np.sin(safe) - safe * np.cos(safe)) / safe**3)
    return 4.0 * np.pi * radius_A**3 * shape


def core_densities(
    stack: ParticleStack,
    empty_average: np.ndarray,
    *,
    outer_diameter_A: float,
    inner_diameter_A: float,
    core_diameter_A: float,
) -> CoreDensity:
    """Fit an empty shell plus a core to every particle.

    Parameters
    ----------
    stack : ParticleStack
        Particles up to some 12 Å (finer detail depends on the view) and the shifts that centre them.
    empty_average : float32 ``[b, b]``
        Average of empty particles in the units of the images (a CTF-corrected class average), in the box of the spectra.
    outer_diameter_A, inner_diameter_A, core_diameter_A : float
        Diameters of the shell and of the core.
    """
    store = stack.store
    pixels = store.pixels(store.radius)
    frequency = pixels.shell / (store.box * store.pixel_size_A)
    profile = _ring_mean(pixels.gather(rfft2_centred(empty_average)).real, pixels.shell)[pixels.shell]
    shell = ball_projection(frequency, outer_diameter_A / 2) - ball_projection(frequency, inner_diameter_A / 2)
    weight = 1.0 / np.maximum(frequency, frequency.min())  # all rings have the same weight
    per_density = float((weight * profile) @ shell / ((weight * shell) @ shell))
    ball = per_density * ball_projection(frequency, core_diameter_A / 2)
    noise = _noise(stack, profile)
    parts = [_fitted(values, ctf, profile, ball, noise) for values, ctf in _centred(stack)]
    return CoreDensity(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _centred(stack: ParticleStack) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the centred particles block by block: real parts of their spectra, and CTFs, both ``[n, K]``."""
    for rows, images in stack.store.blocks(stack.store.radius):
        yield shift_values(images.values, images.pixels, stack.prior_shift_px[rows]).real, images.ctf


def _fitted(
    values: np.ndarray, ctf: np.ndarray, profile: np.ndarray, ball: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return density, its error and the scale of the empty particle by weighted least squares, all ``[n]``."""
    data = ctf * values / noise
    information = np.square(ctf) / noise
    u = np.stack([data @ profile, data @ ball], axis=1).astype(np.float64)  # [n, 2]
    m11, m12, m22 = (information @ (p * q) for p, q in ((profile, profile), (profile, ball), (ball, ball)))
    determinant = np.maximum(m11 * m22 - m12**2, 1e-12 * m11 * m22)
    scale = (m22 * u[:, 0] - m12 * u[:, 1]) / determinant
    density = (m11 * u[:, 1] - m12 * u[:, 0]) / determinant
    return density, np.sqrt(m11 / determinant), scale


def _ring_mean(values: np.ndarray, shells: np.ndarray) -> np.ndarray:
    count = np.maximum(np.bincount(shells), 1)
    return np.bincount(shells, weights=values) / count


def _noise(stack: ParticleStack, profile: np.ndarray) -> np.ndarray:
    """Return the variance of the real part about the empty model, ``[K]``: the median over particles for each ring.

    It includes what is not in the model (views, neighbours), as the errors should.
    """
    shells = stack.store.pixels(stack.store.radius).shell
    rings = [
        np.bincount(shells, weights=row) for values, ctf in _centred(stack) for row in np.square(values - ctf * profile)
    ]
    per_particle = np.stack(rings) / np.maximum(np.bincount(shells), 1)
    return np.maximum(np.median(per_particle, axis=0), 1e-12)[shells]
