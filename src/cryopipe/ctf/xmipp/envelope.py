"""Damping envelope of the CTF: chromatic and spatial incoherence, drift in depth and across, and an empirical factor.

E(u) = exp(-K3 u⁴) · J0(π ΔF λ u²) · sinc(ΔR u) · exp(-π² α² (Cs λ² u³ - Δ u)²) · (1 + R1 u + R2 u²), with
K3 = (¼ π Ca λ (δE/V + 2 δI))² / ln 2 and sinc(x) = sin(πx)/(πx): xmipp ``data/ctf.h``; Velázquez-Muriel et al. 2003,
Ultramicroscopy 96:17, doi:10.1016/S0304-3991(02)00377-7; Sorzano et al. 2007, doi:10.1016/j.jsb.2007.08.013.
Known limit: the parameters are degenerate (a larger α has the same effect as a larger drift). The data determine the
curve, but not the parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from cryopipe.ctf.defocus import Defocus, Microscope

#: Sampled radii and azimuths, and share of the envelope at frequency 0, as in xmipp's maxFreq (its code has 10 %, its help 1 %).
_SAMPLES = 99
_AZIMUTHS = 180
_FAINT = 0.1


@dataclass(frozen=True)
class Envelope:
    """Parameters of the envelope.

    Attributes
    ----------
    amplitude : float
        K, square root of the power at frequency 0 if the CTF is 1.
    chromatic_mm : float
        Chromatic aberration Ca.
    energy_spread_eV : float
        δE.
    current_instability_ppm : float
        δI of the lens.
    convergence_mrad : float
        α, half angle of illumination.
    longitudinal_A, transversal_A : float
        ΔF and ΔR, drifts along the beam and across it.
    linear_A, quadratic_A2 : float
        R1 and R2 of the empirical factor (R0 is 1, because K takes its place).
    """

    amplitude: float = 1.0
    chromatic_mm: float = 2.0
    energy_spread_eV: float = 0.0
    current_instability_ppm: float = 0.0
    convergence_mrad: float = 0.0
    longitudinal_A: float = 0.0
    transversal_A: float = 0.0
    linear_A: float = 0.0
    quadratic_A2: float = 0.0

    def at(self, u: np.ndarray, defocus_A: np.ndarray | float, microscope: Microscope) -> np.ndarray:
        """Return E (without K) at frequencies ``u`` (1/Å) for the defocus ``defocus_A``. It is never negative."""
        wavelength, cs_A = microscope.wavelength_A, microscope.cs_mm * 1e7
        spread = self.energy_spread_eV / (microscope.voltage_kV * 1e3) + 2e-6 * self.current_instability_ppm
        k3 = (0.25 * np.pi * self.chromatic_mm * 1e7 * wavelength * spread) ** 2 / np.log(2.0)
        slope = cs_A * wavelength**2 * u**3 - defocus_A * u
        result = np.exp(-k3 * u**4 - (np.pi * self.convergence_mrad * 1e-3 * slope) ** 2)
        result = result * (1.0 + self.linear_A * u + self.quadratic_A2 * u**2)
        if self.longitudinal_A:
            result = result * special.j0(np.pi * self.longitudinal_A * wavelength * u**2)
        if self.transversal_A:
            result = result * np.sinc(self.transversal_A * u)
        return np.maximum(result, 0.0)


def azimuthal_defocus(defocus: Defocus, azimuth_rad: np.ndarray) -> np.ndarray:
    """Return the defocus (Å) along each azimuth."""
    return defocus.mean_A + defocus.a_A * np.cos(2 * azimuth_rad) + defocus.b_A * np.sin(2 * azimuth_rad)


def envelope_resolution_A(
    envelope: Envelope, defocus: Defocus, microscope: Microscope, nyquist: float, *, faint: float = _FAINT
) -> float:
    """Return the finest resolution, over all azimuths, at which the envelope exceeds ``faint`` of its value at 0.

    99 radii up to ``nyquist`` (1/Å) and 180 azimuths are sampled (xmipp's maxFreq). The crossing is interpolated.

    Parameters
    ----------
    envelope : Envelope
        Envelope of the model.
    defocus : Defocus
        The damping by the convergence depends on it.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    nyquist : float
        Highest frequency that is sampled, 1/Å.
    faint : float
        Share of the value at frequency 0 (which is 1).
    """
    azimuth = np.pi * np.arange(_AZIMUTHS) / _AZIMUTHS
    u = nyquist * np.arange(1, _SAMPLES + 1) / _SAMPLES
    curve = envelope.at(u[None, :], azimuthal_defocus(defocus, azimuth)[:, None], microscope).max(axis=0)
    seen = np.flatnonzero(curve > faint)
    if not len(seen):
        return float(1.0 / u[0])
    last = int(seen[-1])
    if last == _SAMPLES - 1:
        return float(1.0 / nyquist)
    share = (curve[last] - faint) / (curve[last] - curve[last + 1])
    return float(1.0 / (u[last] + share * (u[last + 1] - u[last])))


def envelope_b_factor_A2(
    envelope: Envelope, mean_defocus_A: float, microscope: Microscope, band: tuple[float, float]
) -> float:
    """Return B (Å²) of exp(-B u²/4), from a line fitted to the logarithm of the envelope against u².

    If less than two of 256 samples exceed a thousandth of the largest, the result is 0.

    Parameters
    ----------
    envelope : Envelope
        Envelope of the model.
    mean_defocus_A : float
        Defocus, Å.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    band : (float, float)
        Lowest and highest frequency of the fit, 1/Å.
    """
    u2 = np.linspace(band[0] ** 2, band[1] ** 2, 256)
    curve = envelope.at(np.sqrt(u2), mean_defocus_A, microscope)
    seen = curve > 1e-3 * max(float(curve.max()), 1e-12)
    if seen.sum() < 2:
        return 0.0
    return float(-4.0 * np.polyfit(u2[seen], np.log(curve[seen]), 1)[0])
