"""Simulated particles with known truth, independent of the engines under test: analytic Gaussian phantoms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from cryopipe.imaging.fourier_pixels import FourierPixels, half_plane
from cryopipe.imaging.geometry import random_rotations
from cryopipe.imaging.optics import CtfParameters, ctf_stack
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import ParticleSpectra


@dataclass(frozen=True)
class Phantom:
    """Gaussian blobs of unit-less height, standard deviation in px and centre (x, y, z) in px from ``box // 2``."""

    box: int
    centres: np.ndarray
    widths: np.ndarray
    heights: np.ndarray

    def volume(self) -> np.ndarray:
        axis = np.arange(self.box) - self.box // 2
        volume = np.zeros((self.box,) * 3)
        for centre, width, height in zip(self.centres, self.widths, self.heights, strict=True):
            x, y, z = (np.exp(-((axis - c) ** 2) / (2 * width**2)) for c in centre)
            volume += height * z[:, None, None] * y[None, :, None] * x[None, None, :]
        return volume.astype(np.float32)

    def slices(self, rotations: np.ndarray, pixels: FourierPixels) -> np.ndarray:
        """Orthonormal spectra of the projections, from the blobs' analytic transforms: no grid, no interpolation.

        A Gaussian's transform is a product of one factor a axis, so a view is a small matrix product over the blobs.
        """
        height = self.heights * (2 * np.pi * self.widths**2) ** 1.5 / self.box
        k = np.arange(-pixels.radius, pixels.radius + 1) / self.box
        envelope = np.exp(-2 * np.pi**2 * self.widths[:, None] ** 2 * k**2)  # [blobs, 2 radius + 1]
        found = np.empty((len(rotations), len(pixels)), np.complex64)
        with threadpool_limits(1, user_api="blas"):  # products too small for threads
            for i, rotation in enumerate(np.asarray(rotations)):
                seen = self.centres @ rotation[:2].T  # where the view has the blobs
                x, y = (envelope * np.exp(-2j * np.pi * seen[:, axis, None] * k) for axis in (0, 1))
                plane = (y * height[:, None]).T @ x  # [ky, kx]
                found[i] = plane[pixels.ky + pixels.radius, pixels.kx + pixels.radius]
        return found


def phantom(
    box: int, *, blobs: int = 40, radius: float = 0.32, seed: int = 1, group: str = "C1", sharpness: float = 1.0
) -> Phantom:
    """Return a shell of blobs without symmetry (C1) or with a point group's; outer radius as a share of the box."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(blobs, 3))
    direction *= (radius * box * rng.uniform(0.55, 1, blobs) / np.linalg.norm(direction, axis=1))[:, None]
    widths, heights = rng.uniform(0.02, 0.035, blobs) * box / sharpness, rng.uniform(0.5, 1.5, blobs)
    operators = symmetry_operators(group)
    centres = np.einsum("gij,bj->gbi", operators, direction).reshape(-1, 3)
    return Phantom(box, centres, np.tile(widths, len(operators)), np.tile(heights, len(operators)))


@dataclass(frozen=True)
class Scene:
    """Images with truth: ``shifts`` centre them, ``variance`` is that of real and imaginary part of the noise."""

    truth: Phantom
    images: ParticleSpectra
    rotations: np.ndarray
    shifts: np.ndarray
    variance: float

    @property
    def sigma2(self) -> np.ndarray:
        return np.full(self.images.pixels.radius + 1, self.variance)

    @property
    def noise(self) -> NoiseModel:
        return NoiseModel(self.sigma2)


def scene(
    truth: Phantom,
    n: int,
    *,
    snr: float,
    pixel_size_A: float = 3.0,
    shift_px: float = 2.0,
    seed: int = 2,
    radius: int = 0,
) -> Scene:
    """Return n images with astigmatic CTFs (0.8-2 µm), random poses and shifts, white noise.

    ``snr`` is signal variance over noise variance in the CTF-filtered images of the whole box; infinite: no noise.
    """
    rng = np.random.default_rng(seed)
    pixels = half_plane(truth.box, radius or truth.box // 2 - 1)
    rotations = random_rotations(rng, n)
    shifts = rng.uniform(-shift_px, shift_px, (n, 2))
    u = rng.uniform(8e3, 2e4, n)
    optics = CtfParameters(u, u - rng.uniform(0, 600, n), rng.uniform(0, 180, n), 300.0, 2.7, 0.1)
    step = 1 / (truth.box * pixel_size_A)
    factor = ctf_stack(pixels.kx * step, pixels.ky * step, optics)
    values = truth.slices(rotations, pixels) * factor
    turns = (shifts[:, :1] * pixels.kx + shifts[:, 1:] * pixels.ky) / truth.box
    values = values * np.exp(2j * np.pi * turns)  # displaced by -shift: applying +shift centres it
    signal = 2 * float(np.mean((np.abs(values) ** 2).sum(axis=1))) / truth.box**2  # variance a pixel; mates count
    variance = signal / snr / 2 if np.isfinite(snr) else 0.5 * signal
    if np.isfinite(snr):
        noise = rng.normal(size=(*values.shape, 2)).view(np.complex128)[..., 0]
        values = values + noise * np.sqrt(variance)
    images = ParticleSpectra(pixels, values.astype(np.complex64), factor, truth.box, pixel_size_A, np.ones(n, np.int32))
    return Scene(truth, images, rotations, shifts, variance)
