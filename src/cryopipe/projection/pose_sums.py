"""The sums of an M-step, one row for each state of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cryopipe.imaging.backend import array_module, to_numpy
from cryopipe.imaging.fourier_pixels import FourierPixels


@dataclass
class PoseSums:
    """The sums of the M-step, one row per state. They are inserted as slices (3-D) or rotated into class averages (2-D).

    Attributes
    ----------
    numerator : complex64 [o, K]
        Σ γ C X exp(-2πi k·t/box) / σ².
    weight : float32 [o, K]
        Σ γ C² / σ².
    data_power : float64 [K]
        Σ |X|² / σ² over the images.
    n_images : int
    """

    numerator: Any
    weight: Any
    data_power: np.ndarray
    n_images: int

    def to_host(self) -> PoseSums:
        """Return the same sums as NumPy arrays."""
        return PoseSums(to_numpy(self.numerator), to_numpy(self.weight), self.data_power, self.n_images)

    def merge(self, other: PoseSums) -> PoseSums:
        """Return the sums over both sets of images (same states and pixels)."""
        return PoseSums(
            self.numerator + other.numerator,
            self.weight + other.weight,
            self.data_power + other.data_power,
            self.n_images + other.n_images,
        )

    def scaled(self, factor: float) -> PoseSums:
        """Return the sums times ``factor``, for a running average over mini-batches."""
        numerator, weight = self.numerator * np.float32(factor), self.weight * np.float32(factor)
        return PoseSums(numerator, weight, self.data_power * factor, self.n_images)

    def state_mass(self) -> np.ndarray:
        """Return each state's share of the information, Σ_k W / Σ_ok W, float64 [o]."""
        mass = to_numpy(self.weight.sum(axis=1, dtype=np.float64))
        return mass / max(float(mass.sum()), np.finfo(np.float64).tiny)

    def noise_ratio(self, references: Any, pixels: FourierPixels) -> np.ndarray:
        """Return the factor by which σ² of each shell must be multiplied to fit the residuals, float64 ``[radius + 1]``.

        It is Σ γ |X - C Y|² / σ² divided by twice the number of pixels. It is computed from the sums alone, as
        Σ|X|²/σ² - 2 Re Σ_o conj(Y_o) S_o + Σ_o W_o |Y_o|². It is one if the noise model is right. Shell 0 is one.

        Parameters
        ----------
        references : complex64 [o, K]
            The references of the search.
        pixels : FourierPixels
            Pixels of the images.
        """
        xp = array_module(self.numerator, references)
        residual = np.array(self.data_power)
        for start in range(0, len(references), 4096):  # limits the temporary arrays
            part = slice(start, start + 4096)
            reference, numerator, weight = references[part], self.numerator[part], self.weight[part]
            cross = (xp.conj(reference) * numerator).real
            power = weight * (reference.real**2 + reference.imag**2)
            residual += to_numpy((power - 2 * cross).sum(axis=0, dtype=np.float64))
        per_shell = np.bincount(pixels.shell, residual, pixels.radius + 1)
        count = np.bincount(pixels.shell, minlength=pixels.radius + 1) * 2.0 * max(self.n_images, 1)
        return np.where(count > 0, per_shell / np.maximum(count, 1), 1.0)
