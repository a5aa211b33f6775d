"""Smooth background of a power spectrum: base line, square-root exponential, two Gaussians, cubic polynomial.

B²(u) = b0 + s exp(-q √u) + g1 exp(-σ1 (u - c1)²) - g2 exp(-σ2 (u - c2)²) + R1 u + R2 u² + R3 u³, where q, c and σ may
vary with the azimuth like an ellipse to first order (xmipp's background; Sorzano et al. 2007,
doi:10.1016/j.jsb.2007.08.013).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Hill:
    """A Gaussian ring: centre c (1/Å), sharpness σ (Å²), and their ellipticity.

    Along azimuth θ the centre is c + a cos 2θ + b sin 2θ, and the sharpness is σ exp(h (a cos 2θ + b sin 2θ)/c).
    """

    centre: float
    sharpness: float
    a: float = 0.0
    b: float = 0.0
    h: float = 0.0

    def at(self, u: np.ndarray, cos2: np.ndarray | float = 0.0, sin2: np.ndarray | float = 0.0) -> np.ndarray:
        """Return the Gaussian of height 1."""
        moved = self.a * cos2 + self.b * sin2
        sharpness = self.sharpness * np.exp(self.h * moved / self.centre)
        return np.exp(-sharpness * (u - self.centre - moved) ** 2)

    def axes(self) -> tuple[float, float, float, float, float]:
        """Return (cU, cV, σU, σV, angle of U in degrees)."""
        size = float(np.hypot(self.a, self.b))
        angle = float(np.degrees(0.5 * np.arctan2(self.b, self.a)))
        turned = np.exp(self.h * size / self.centre)
        return self.centre + size, self.centre - size, self.sharpness * turned, self.sharpness / turned, angle


@dataclass(frozen=True)
class Background:
    """Parameters of the background. Heights are powers. ``slope`` is q in Å^½ with its ellipticity (a, b) in Å^½."""

    base: float
    root: float
    slope: float
    slope_a: float
    slope_b: float
    rise: float
    first: Hill | None
    fall: float
    second: Hill | None
    polynomial: tuple[float, float, float]

    def at(self, u: np.ndarray, cos2: np.ndarray | float = 0.0, sin2: np.ndarray | float = 0.0) -> np.ndarray:
        """Return B² at frequencies ``u`` (1/Å) along azimuths given by cos 2θ and sin 2θ. It is never negative."""
        q = self.slope + self.slope_a * cos2 + self.slope_b * sin2
        result = self.base + self.root * np.exp(-q * np.sqrt(u))
        result = result + u * (self.polynomial[0] + u * (self.polynomial[1] + u * self.polynomial[2]))
        if self.first is not None:
            result = result + self.rise * self.first.at(u, cos2, sin2)
        if self.second is not None:
            result = result - self.fall * self.second.at(u, cos2, sin2)
        return np.maximum(result, 0.0)
