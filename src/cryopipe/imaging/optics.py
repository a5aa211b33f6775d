"""The contrast transfer function: one implementation, RELION's sign, positive defocus = underfocus.

With k the frequency in 1/Å, θ its direction from x (columns) towards y (rows), λ the wavelength and α the direction of
U:

    Δ(θ)  = (U + V)/2 + (U - V)/2 · cos 2(θ - α)
    χ(k)  = π λ Δ k² - (π/2) Cs λ³ k⁴ + phase shift + arctan(w / √(1 - w²))
    CTF   = +sin χ · scale · exp(-B k²/4)

so that CTF = +w at k = 0 and an image whose particles are white is X = CTF · projection (RELION, Xmipp). CTFFIND and
cisTEM take -sin χ. Only images differ by this sign; the parameters are the same.

References
----------
Mindell & Grigorieff 2003, doi:10.1016/S1047-8477(03)00069-8; Rohou & Grigorieff 2015, doi:10.1016/j.jsb.2015.08.008.
Known limit: no beam tilt and no higher aberrations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module
from cryopipe.kernels.ctf_values import ctf_values

Mode = Literal["full", "abs", "flip", "intact_peak"]
Sign = Literal["relion", "cistem"]


@dataclass(frozen=True)
class CtfParameters:
    """Parameters of one CTF (scalars) or of n of them (arrays ``[n]``, broadcast against each other).

    Attributes
    ----------
    defocus_u_A, defocus_v_A : float or array
        Å, positive = underfocus.
    defocus_angle_deg : float or array
        From the x axis to the direction of U.
    voltage_kV, cs_mm, amplitude_contrast : float or array
        Acceleration voltage; spherical aberration; amplitude contrast w as a fraction.
    phase_shift_deg : float or array
        Phase shift of a phase plate.
    b_factor_A2, scale : float or array
        The CTF is multiplied by ``scale · exp(-b_factor · k² / 4)``.
    """

    defocus_u_A: Any
    defocus_v_A: Any
    defocus_angle_deg: Any
    voltage_kV: Any = 300.0
    cs_mm: Any = 2.7
    amplitude_contrast: Any = 0.1
    phase_shift_deg: Any = 0.0
    b_factor_A2: Any = 0.0
    scale: Any = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not np.all(np.isfinite(np.asarray(getattr(self, field.name), dtype=np.float64))):
                raise InputError(
                    f"CTF parameter {field.name} is not finite. Estimate that CTF again, or leave the image out."
                )
        _check_range("voltage_kV", self.voltage_kV, 1.0, 2000.0, "in kV")
        _check_range("cs_mm", self.cs_mm, 0.0, 100.0, "in mm")
        _check_range("amplitude_contrast", self.amplitude_contrast, 0.0, 0.999, "a fraction, usually 0.07 to 0.1")

    @property
    def count(self) -> int | None:
        """Number n of CTFs, or None for a single one given by scalars."""
        shape = np.broadcast_shapes(*(np.shape(getattr(self, f.name)) for f in fields(self)))
        return None if shape == () else int(np.prod(shape))

    def subset(self, index: Any) -> CtfParameters:
        """Return the CTFs at ``index`` (integer, slice, mask or index array) of a set of n."""
        if self.count is None:
            raise InputError("a single CTF (scalar parameters) cannot be divided into subsets")
        return CtfParameters(
            **{f.name: np.broadcast_to(getattr(self, f.name), (self.count,))[index] for f in fields(self)}
        )

    def with_defocus_offset(self, offset_A: Any) -> CtfParameters:
        """Return the CTFs with ``offset_A`` (Å, scalar or ``[n]``) added to both defoci."""
        return replace(
            self, defocus_u_A=np.add(self.defocus_u_A, offset_A), defocus_v_A=np.add(self.defocus_v_A, offset_A)
        )


def electron_wavelength_A(voltage_kV: Any) -> Any:
    """Return the relativistic wavelength in Å: 12.2643247 / √(V + 0.978466e-6 V²), V in volts (RELION, Xmipp)."""
    volts = np.asarray(voltage_kV, dtype=np.float64) * 1e3
    return 12.2643247 / np.sqrt(volts * (1.0 + volts * 0.978466e-6))


def phase_coefficients(parameters: CtfParameters) -> np.ndarray:
    """Return c ``[..., 5]`` float64 with χ = c0 + c1·k² + c2·(kx² - ky²) + c3·2 kx ky + c4·k⁴ (radians; k in 1/Å)."""
    p = parameters
    wavelength = electron_wavelength_A(p.voltage_kV)
    u, v = np.asarray(p.defocus_u_A, dtype=np.float64), np.asarray(p.defocus_v_A, dtype=np.float64)
    angle = 2.0 * np.deg2rad(np.asarray(p.defocus_angle_deg, dtype=np.float64))
    astigmatism = 0.5 * np.pi * wavelength * (u - v)
    terms = (
        np.deg2rad(np.asarray(p.phase_shift_deg, dtype=np.float64))
        + np.arcsin(np.asarray(p.amplitude_contrast, dtype=np.float64)),
        0.5 * np.pi * wavelength * (u + v),
        astigmatism * np.cos(angle),
        astigmatism * np.sin(angle),
        -0.5 * np.pi * np.asarray(p.cs_mm, dtype=np.float64) * 1e7 * wavelength**3,
    )
    return np.stack(np.broadcast_arrays(*terms), axis=-1)


def ctf_phase(kx: Any, ky: Any, parameters: CtfParameters) -> Any:
    """Return χ in radians, float64.

    χ is the phase shift + arcsin(w) at k = 0, and it grows until the spherical aberration dominates.

    Parameters
    ----------
    kx, ky : array ``[...]``
        Frequencies in 1/Å (NumPy or CuPy).
    parameters : CtfParameters
        Scalars give ``[...]``; arrays ``[n]`` give ``[n, ...]``.
    """
    xp = array_module(kx, ky)
    kx, ky = xp.asarray(kx, dtype=xp.float64), xp.asarray(ky, dtype=xp.float64)
    coefficients = phase_coefficients(parameters)
    x2, y2 = kx * kx, ky * ky
    k2 = x2 + y2
    c = [xp.asarray(_with_image_axes(coefficients[..., i], k2.ndim)) for i in range(5)]
    return c[0] + c[1] * k2 + c[2] * (x2 - y2) + c[3] * (2.0 * kx * ky) + c[4] * (k2 * k2)


def ctf(
    kx: Any,
    ky: Any,
    parameters: CtfParameters,
    *,
    mode: Mode = "full",
    sign: Sign = "relion",
    divisor_floor: float = 0.0,
) -> Any:
    """Return the CTF in float64 at any frequencies. For many particles :func:`ctf_stack` is faster.

    Parameters
    ----------
    kx, ky : array ``[...]``
        Frequencies in 1/Å.
    parameters : CtfParameters
        Scalars give ``[...]``; arrays ``[n]`` give ``[n, ...]``.
    mode : {"full", "abs", "flip", "intact_peak"}
        ``full``: the signed CTF. ``abs``: its absolute value (for phase-flipped images). ``flip``: its sign ±1 (phase
        flipping). ``intact_peak``: the CTF, but 1 before its first peak (χ < π/2).
    sign : {"relion", "cistem"}
        +w or -w at zero frequency.
    divisor_floor : float
        Smaller absolute values become ± this floor, so that division is safe (RELION: 1e-8). 0 leaves them unchanged.
    """
    xp = array_module(kx, ky)
    phase = ctf_phase(kx, ky, parameters)
    values = xp.sin(phase)
    if mode == "flip":
        return xp.where(values < 0.0, -1.0, 1.0) * (1.0 if sign == "relion" else -1.0)
    if mode == "intact_peak":
        values = xp.where(xp.abs(phase) < 0.5 * np.pi, 1.0, values)
    elif mode == "abs":
        values = xp.abs(values)
    elif mode != "full":
        raise InputError(f"CTF mode {mode!r} is unknown. Choose full, abs, flip or intact_peak.")
    scale = _with_image_axes(np.asarray(parameters.scale, dtype=np.float64), phase.ndim - np.ndim(parameters.scale))
    damping = _with_image_axes(
        np.asarray(parameters.b_factor_A2, dtype=np.float64), phase.ndim - np.ndim(parameters.b_factor_A2)
    )
    if np.any(scale != 1.0):
        values = values * xp.asarray(scale)
    if np.any(damping != 0.0):
        values = values * xp.exp(xp.asarray(-0.25 * damping) * (xp.asarray(kx) ** 2 + xp.asarray(ky) ** 2))
    if sign == "cistem" and mode != "abs":
        values = -values
    if divisor_floor > 0.0:
        values = xp.where(xp.abs(values) < divisor_floor, xp.where(values < 0.0, -divisor_floor, divisor_floor), values)
    return values


def ctf_stack(kx: Any, ky: Any, parameters: CtfParameters, *, absolute: bool = False) -> Any:
    """Return the CTFs of n images at K frequencies as float32 ``[n, K]``, fast (RELION sign).

    Parameters
    ----------
    kx, ky : array ``[K]``
        Frequencies in 1/Å, such as ``FourierPixels.kx / (box · pixel_size_A)``.
    parameters : CtfParameters
        Arrays ``[n]`` (or scalars: n = 1).
    absolute : bool
        Return |CTF|, for phase-flipped images (``rlnCtfDataArePhaseFlipped``).

    Notes
    -----
    χ reaches 1e4 rad, therefore it is summed and reduced to one turn in float64. The sine is a float32 polynomial. The
    error against :func:`ctf` stays below 1e-6.
    """
    n = 1 if parameters.count is None else parameters.count
    coefficients = np.broadcast_to(phase_coefficients(parameters), (n, 5))
    scale = np.ascontiguousarray(np.broadcast_to(np.asarray(parameters.scale, dtype=np.float64), (n,)))
    damping = np.ascontiguousarray(np.broadcast_to(np.asarray(parameters.b_factor_A2, dtype=np.float64), (n,)))
    return ctf_values(np.ascontiguousarray(coefficients), scale, damping, kx, ky, absolute=absolute)


def ctf_zeros(n: int | np.ndarray, parameters: CtfParameters, *, azimuth_deg: Any = 0.0) -> np.ndarray:
    """Return the frequency (1/Å) of the n-th zero of the CTF (n = 1, 2, ...) along a direction.

    It solves χ(k) = nπ on the rising branch, that is below :func:`turning_frequency`. The result is NaN where χ does
    not reach nπ.

    Parameters
    ----------
    n : int or array
        Number of the zero; broadcast against ``azimuth_deg`` (degrees from x) and scalar parameters.
    """
    c = phase_coefficients(parameters)
    angle = 2.0 * np.deg2rad(np.asarray(azimuth_deg, dtype=np.float64))
    linear = c[..., 1] + c[..., 2] * np.cos(angle) + c[..., 3] * np.sin(angle)
    rest = c[..., 0] - np.pi * np.asarray(n, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        root = np.sqrt(linear * linear - 4.0 * c[..., 4] * rest)
        squared = -2.0 * rest / (linear + root)  # the smaller root, in the form that stays exact without aberration
        return np.sqrt(squared)


def turning_frequency(parameters: CtfParameters, *, azimuth_deg: Any = 0.0) -> np.ndarray:
    """Return k* = √(Δ / (Cs λ²)) in 1/Å, where the phase stops growing. It is infinite without spherical aberration."""
    c = phase_coefficients(parameters)
    angle = 2.0 * np.deg2rad(np.asarray(azimuth_deg, dtype=np.float64))
    linear = c[..., 1] + c[..., 2] * np.cos(angle) + c[..., 3] * np.sin(angle)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(c[..., 4] == 0.0, np.inf, np.sqrt(linear / np.where(c[..., 4] == 0.0, 1.0, -2.0 * c[..., 4])))


def normalise_defocus(u_A: Any, v_A: Any, angle_deg: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the same astigmatism with U >= V and the angle in (-90, 90]: (U, V, α) equals (V, U, α ± 90°)."""
    u, v, angle = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (u_A, v_A, angle_deg)))
    swap = u < v
    turned = np.where(swap, angle + 90.0, angle)
    return np.where(swap, v, u), np.where(swap, u, v), 90.0 - np.mod(90.0 - turned, 180.0)


_COLUMNS = {
    "defocus_u_A": "rlnDefocusU",
    "defocus_v_A": "rlnDefocusV",
    "defocus_angle_deg": "rlnDefocusAngle",
    "voltage_kV": "rlnVoltage",
    "cs_mm": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
}
#: columns that a table needs for CTFs, in the order of the parameters
CTF_COLUMNS = tuple(_COLUMNS.values())
_OPTIONAL_COLUMNS = {"phase_shift_deg": "rlnPhaseShift", "b_factor_A2": "rlnCtfBfactor", "scale": "rlnCtfScalefactor"}


def from_table(table: pd.DataFrame) -> CtfParameters:
    """Return the CTFs of a table's rows, which include their optics group's columns (``StarTable.with_optics()``).

    Raises
    ------
    InputError
        A column is missing, or one of its values is not a possible CTF parameter.
    """
    missing = [column for column in CTF_COLUMNS if column not in table.columns]
    if missing:
        raise InputError(f"the table lacks {', '.join(missing)}. Estimate the CTF first, or join the optics table.")
    values = {name: table[column].to_numpy(dtype=np.float64) for name, column in _COLUMNS.items()}
    for name, column in _OPTIONAL_COLUMNS.items():
        if column in table.columns:
            values[name] = table[column].to_numpy(dtype=np.float64)
    return CtfParameters(**values)


def from_row(row: Mapping[str, Any]) -> CtfParameters | None:
    """Return the CTF (scalars) of one row that includes its optics group's columns. None if its defocus is unknown."""
    return from_table(pd.DataFrame([row])).subset(0) if "rlnDefocusU" in row else None


def _with_image_axes(values: np.ndarray, dimensions: int) -> np.ndarray:
    """Append ``dimensions`` axes of length 1 to parameters ``[n]`` to broadcast them against images. Keep scalars."""
    return values.reshape(values.shape + (1,) * dimensions) if values.ndim else values


def _check_range(name: str, values: Any, lowest: float, highest: float, meaning: str) -> None:
    """Refuse a value outside its physical range. Most often its unit is wrong (300000 V, 2.7e7 Å)."""
    array = np.asarray(values, dtype=np.float64)
    bad = array[(array < lowest) | (array > highest)]
    if bad.size:
        raise InputError(f"CTF parameter {name} = {bad.flat[0]:g} is impossible ({meaning}, {lowest:g} to {highest:g})")
