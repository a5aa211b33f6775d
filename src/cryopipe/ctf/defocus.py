"""The phase of the CTF as a function of z, a, b and the phase shift, parameters in which a fit has no singularity.

The defocus along azimuth θ is Δ = z + a cos 2θ + b sin 2θ, so a = (U - V)/2 cos 2α and b = (U - V)/2 sin 2α.
χ = π λ k² (Δ - ½ λ² k² Cs) + phase shift + arcsin(w) (cisTEM and RELION agree up to the sign of the CTF).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryopipe.imaging.optics import electron_wavelength_A


@dataclass(frozen=True)
class Microscope:
    """The constants of a dataset: voltage (kV), spherical aberration (mm), amplitude contrast."""

    voltage_kV: float
    cs_mm: float
    amplitude_contrast: float

    @property
    def wavelength_A(self) -> float:
        """Wavelength of the electrons, Å."""
        return float(electron_wavelength_A(self.voltage_kV))

    @property
    def offset(self) -> float:
        """Phase of the amplitude contrast, arcsin(w), radians."""
        return float(np.arcsin(self.amplitude_contrast))


@dataclass(frozen=True)
class Defocus:
    """A defocus with astigmatism and phase shift.

    Attributes
    ----------
    mean_A, a_A, b_A : float
        z, a, b in the docstring of the module, Å.
    phase_shift_rad : float
        Phase shift of a phase plate, radians.
    """

    mean_A: float
    a_A: float = 0.0
    b_A: float = 0.0
    phase_shift_rad: float = 0.0

    @property
    def u_A(self) -> float:
        """Larger defocus, Å."""
        return self.mean_A + float(np.hypot(self.a_A, self.b_A))

    @property
    def v_A(self) -> float:
        """Smaller defocus, Å."""
        return self.mean_A - float(np.hypot(self.a_A, self.b_A))

    @property
    def angle_deg(self) -> float:
        """Direction of the larger defocus from x towards y, degrees in (-90, 90]."""
        angle = float(np.degrees(0.5 * np.arctan2(self.b_A, self.a_A)))
        return 90.0 if angle <= -90.0 else angle


def from_uv(u_A: float, v_A: float, angle_deg: float, phase_shift_deg: float = 0.0) -> Defocus:
    """Return the defocus with axes U and V.

    Parameters
    ----------
    u_A, v_A : float
        Defocus along the two axes, Å.
    angle_deg : float
        Direction of U from x towards y, degrees.
    phase_shift_deg : float
        Phase shift of a phase plate, degrees.
    """
    half, twice = (u_A - v_A) / 2.0, 2.0 * np.radians(angle_deg)
    return Defocus(
        (u_A + v_A) / 2.0, float(half * np.cos(twice)), float(half * np.sin(twice)), float(np.radians(phase_shift_deg))
    )


def phase(
    k2: np.ndarray, defocus_A: np.ndarray | float, microscope: Microscope, phase_shift_rad: float = 0.0
) -> np.ndarray:
    """Return χ in radians, as defined in the docstring of the module.

    Parameters
    ----------
    k2 : ndarray
        Squared spatial frequencies, 1/Å².
    defocus_A : ndarray or float
        Defocus at each frequency, or one for all, Å. Shapes broadcast.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    phase_shift_rad : float
        Phase shift of a phase plate, radians.
    """
    wavelength, cs_A = microscope.wavelength_A, microscope.cs_mm * 1e7
    turned: np.ndarray = np.pi * wavelength * k2 * (defocus_A - 0.5 * wavelength**2 * cs_A * k2)
    return turned + (phase_shift_rad + microscope.offset)


def equivalent_k2(chi: np.ndarray, defocus: Defocus, microscope: Microscope) -> np.ndarray:
    """Return the k² (1/Å²) at which the *mean* defocus gives the phase ``chi``, or NaN beyond the turning point."""
    wavelength, cs_A = microscope.wavelength_A, microscope.cs_mm * 1e7
    turns = (chi - defocus.phase_shift_rad - microscope.offset) / (np.pi * wavelength)  # z q - ½ λ² Cs q²
    curvature = 0.5 * wavelength**2 * cs_A
    if curvature == 0:
        return turns / defocus.mean_A
    discriminant = defocus.mean_A**2 - 4.0 * curvature * turns
    root = np.sqrt(np.where(discriminant >= 0, discriminant, np.nan))
    result: np.ndarray = 2.0 * turns / (defocus.mean_A + root)
    return result


def rings_from_A(defocus: Defocus, microscope: Microscope) -> float:
    """Return the resolution (Å) of the maximum of |CTF| after its first zero, infinity if there is none.

    Coarser than this a spectrum has the shape of the particles more than rings, so that a fit of the defocus that starts here has
    less bias.
    """
    k2 = float(equivalent_k2(np.array(1.5 * np.pi), defocus, microscope))
    return k2**-0.5 if np.isfinite(k2) and k2 > 0 else float("inf")
