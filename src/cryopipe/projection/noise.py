"""The noise of a set of images: sigma2[shell], the variance of the real part (and of the imaginary part) of a spectrum.

Spectra are orthonormal: White noise of sd 1 has sigma2 = 0.5 in every shell. Entry 0 (the mean, which is not used)
repeats entry 1. The log-likelihood of an image X given its model C·Y is then ``-Σ |X - C·Y|² / (2 σ²)`` over the pixels
of a half plane.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import to_numpy
from cryopipe.imaging.fourier_pixels import FourierPixels
from cryopipe.projection.particle_spectra import ParticleSpectra


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """Noise variances by shell, for one or several groups of images.

    Attributes
    ----------
    sigma2 : float64 [shells] or [g, shells]
        Variance of the real part, equal to that of the imaginary part.
    group : int [n], optional
        Row of ``sigma2`` of each image. It is needed if there is more than one row.
    """

    sigma2: np.ndarray
    group: np.ndarray | None = None

    def subset(self, index: Any) -> NoiseModel:
        """Return the model of the images at ``index``."""
        return self if self.group is None else replace(self, group=np.asarray(self.group)[index])

    def groups(self, n: int) -> np.ndarray:
        """Return the row of each of ``n`` images in the table of variances, int64 [n]."""
        return np.zeros(n, np.int64) if self.group is None else np.asarray(self.group, np.int64)

    def inverse_variance(self, images: ParticleSpectra) -> np.ndarray:
        """Return 1/σ² at every pixel of the images for every group, float32 ``[g, K]``.

        Raises
        ------
        InputError
            The model does not reach the images' radius, one of its values is not positive, or images lack a group.
        """
        table = np.atleast_2d(np.asarray(self.sigma2, np.float64))
        radius = images.pixels.radius
        if table.ndim != 2 or table.shape[1] < radius + 1:
            raise InputError(
                f"noise variances of shape {np.shape(self.sigma2)} do not reach shell {radius} of the images. Estimate "
                "them for this radius."
            )
        used = table[:, 1 : radius + 1]
        if not np.all(np.isfinite(used)) or used.min() <= 0:
            raise InputError(f"noise variances must be positive and finite, but the smallest is {used.min()}")
        if self.group is not None:
            group = np.asarray(self.group)
            if group.shape != (len(images),) or (group.size and (group.min() < 0 or group.max() >= len(table))):
                raise InputError(
                    f"the noise model's group must assign one of {len(table)} noise spectra to each of {len(images)} images"
                )
        elif len(table) > 1:
            raise InputError(f"the noise model has {len(table)} spectra. Give the group of each image.")
        return (1 / table[:, images.pixels.shell]).astype(np.float32, order="C")  # [g, K]

    def inverse_variance_of_each(self, images: ParticleSpectra) -> np.ndarray:
        """Return 1/σ² of the images, float32: ``[K]`` if all have the same noise, ``[n, K]`` if there are groups."""
        table = self.inverse_variance(images)
        return table[0] if self.group is None else table[np.asarray(self.group)]


class ImagePower:
    """Power and mean of images that are read in portions, for a noise model before any reference is known."""

    def __init__(self, pixels: FourierPixels) -> None:
        self.pixels, self.count = pixels, 0
        self._power = np.zeros(len(pixels))
        self._sum = np.zeros(len(pixels), np.complex128)

    def add(self, images: ParticleSpectra) -> None:
        """Add images on the same pixels."""
        for start in range(0, len(images), 1024):  # limits the temporary array
            values = images.values[start : start + 1024]
            self._power += to_numpy((values.real**2 + values.imag**2).sum(axis=0, dtype=np.float64))
        self._sum += to_numpy(images.values.sum(axis=0, dtype=np.complex128))
        self.count += len(images)

    def by_shell(self) -> np.ndarray:
        """Return ½⟨|X|²⟩ over images and the pixels of each shell, float64 ``[radius + 1]``."""
        return _shell_mean(self.pixels, self._power / (2 * max(self.count, 1)))

    def initial_sigma2(self) -> np.ndarray:
        """Return σ² by shell before any reference is known: half the mean power minus half the power of the mean image.

        It includes the signal that differs between images. Therefore it is a little too large at low frequencies, which
        is safe for first iterations (RELION starts in the same way). Later iterations use
        `cryopipe.projection.pose_sums.PoseSums.noise_ratio`.

        Raises
        ------
        InputError
            There are fewer than two images, or the images have no variance.
        """
        if self.count < 2:
            raise InputError(
                f"a noise model needs at least two images, to separate noise from common signal, but there are "
                f"{self.count}. Add particles or give a noise model."
            )
        mean = self._sum / self.count
        sigma2 = self.by_shell() - _shell_mean(self.pixels, np.abs(mean) ** 2 / 2)
        return checked_sigma2(sigma2 * self.count / (self.count - 1))


def power_by_shell(images: ParticleSpectra) -> np.ndarray:
    """Return ½⟨|X|²⟩ over images and the pixels of each shell, float64 ``[radius + 1]``."""
    return _power_of(images).by_shell()


def initial_sigma2(images: ParticleSpectra) -> np.ndarray:
    """Return the noise model of `ImagePower.initial_sigma2` for images in memory."""
    return _power_of(images).initial_sigma2()


def updated_sigma2(sigma2: np.ndarray, ratio: np.ndarray, *, memory: float = 0.0) -> np.ndarray:
    """Return σ² times its measured ratio, averaged with the old σ² of weight ``memory`` (0: only the new value)."""
    old = np.asarray(sigma2, np.float64)[: len(ratio)]
    return checked_sigma2(memory * old + (1 - memory) * old * np.asarray(ratio, np.float64))


def checked_sigma2(sigma2: np.ndarray) -> np.ndarray:
    """Return a noise model with entry 0 set and all values at least 1e-4 of its median, or raise an `InputError`.

    The floor prevents a shell that masking or filtering emptied from dominating the likelihood.
    """
    sigma2 = np.array(sigma2, np.float64)
    if sigma2.ndim != 1 or len(sigma2) < 2 or not np.isfinite(sigma2[1:]).all() or np.median(sigma2[1:]) <= 0:
        raise InputError(
            "the images have no noise (their variance is zero or not finite), so that no likelihood can be computed. "
            "Check the images."
        )
    sigma2[1:] = np.maximum(sigma2[1:], 1e-4 * np.median(sigma2[1:]))
    sigma2[0] = sigma2[1]
    return sigma2


def _power_of(images: ParticleSpectra) -> ImagePower:
    power = ImagePower(images.pixels)
    power.add(images)
    return power


def _shell_mean(pixels: FourierPixels, by_pixel: np.ndarray) -> np.ndarray:
    total = np.bincount(pixels.shell, by_pixel, pixels.radius + 1)
    count = np.bincount(pixels.shell, minlength=pixels.radius + 1)
    mean = total / np.maximum(count, 1)
    mean[0] = mean[1]
    return mean
