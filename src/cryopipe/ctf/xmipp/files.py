"""Files of a fitted spectrum: pictures of data beside model, all parameters, radial curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage

from cryopipe.ctf.defocus import Defocus, Microscope, phase
from cryopipe.ctf.xmipp.background import Background, Hill
from cryopipe.ctf.xmipp.enhanced_spectrum import EnhancedPsd
from cryopipe.ctf.xmipp.envelope import Envelope
from cryopipe.ctf.xmipp.polar_average import Cells, ring_cells, ring_contrast

#: Number of directions of the polar image, and sd (degrees) of the Gaussian along the rings that makes weak rings visible.
_DIRECTIONS, _SMEAR_DEG = 1024, 2.5


def diagnostic_pictures(
    enhanced: EnhancedPsd, defocus: Defocus, microscope: Microscope, resolution_A: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return two images ``[n, n]`` float32, 0 to 1: with the model in the right half, and in one quadrant (x > 0, y < 0).

    The rest is the enhanced spectrum. It is averaged over a few degrees and scaled ring by ring, so that weak rings are
    visible. The model is CTF².

    Parameters
    ----------
    enhanced : EnhancedPsd
        Enhanced spectrum ``[n, n]``.
    defocus : Defocus
        The fit.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    resolution_A : float
        Resolution of the fit, Å. Beyond it the model is grey (0.5).
    """
    n = enhanced.values.shape[0]
    axis = np.arange(n) - n // 2
    ring = np.minimum(np.rint(np.hypot(axis[:, None], axis[None, :])).astype(int), n // 2)
    smooth = ndimage.gaussian_filter(_smeared(enhanced.values), 1.0)
    count = np.maximum(np.bincount(ring.ravel()), 1)
    mean = np.bincount(ring.ravel(), weights=smooth.ravel()) / count
    power = np.bincount(ring.ravel(), weights=smooth.ravel() ** 2) / count
    centre = ndimage.uniform_filter1d(mean, 33, mode="nearest")
    rms = np.sqrt(np.maximum(ndimage.uniform_filter1d(power, 33, mode="nearest") - centre**2, 1e-12))
    data = np.clip(0.5 + 0.25 * (smooth - centre[ring]) / rms[ring], 0.0, 1.0)
    data = np.where(enhanced.mask, data, 0.5)
    unit = 1.0 / (n * enhanced.pixel_size_A)
    kx, ky = axis[None, :] * unit, axis[:, None] * unit
    k2 = kx**2 + ky**2
    safe = np.where(k2 > 0, k2, 1.0)
    local = defocus.mean_A + (defocus.a_A * (kx**2 - ky**2) + defocus.b_A * 2.0 * kx * ky) / safe
    model = np.sin(phase(k2, local, microscope, defocus.phase_shift_rad)) ** 2
    model = np.where(k2 <= 1.0 / resolution_A**2, model, 0.5)
    right, upper = axis[None, :] >= 0, axis[:, None] < 0
    half, quadrant = (np.where(place, model, data).astype(np.float32) for place in (right, right & upper))
    return half, quadrant


def _smeared(image: np.ndarray) -> np.ndarray:
    """Return an image ``[n, n]`` smoothed along circles around ``[n // 2, n // 2]``."""
    n = image.shape[0]
    middle = n // 2
    angle = 2.0 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    radius = np.arange(int(1.5 * middle))[:, None]
    where = [middle + radius * np.sin(angle), middle + radius * np.cos(angle)]
    polar = ndimage.map_coordinates(image, where, order=1, mode="nearest")
    polar = ndimage.gaussian_filter1d(polar, _SMEAR_DEG / 360.0 * _DIRECTIONS, axis=1, mode="wrap")
    polar = np.concatenate([polar, polar[:, :1]], axis=1)
    axis = np.arange(n) - middle
    turn = np.arctan2(axis[:, None], axis[None, :]) % (2.0 * np.pi) / (2.0 * np.pi) * _DIRECTIONS
    return ndimage.map_coordinates(polar, [np.hypot(axis[:, None], axis[None, :]), turn], order=1, mode="nearest")


def radial_curves(
    cells: Cells, defocus: Defocus, microscope: Microscope, envelope: Envelope, background: Background
) -> pd.DataFrame:
    """Return the radial curves up to Nyquist: frequency (1/Å), resolution (Å), data, background, envelope K·E, model.

    Data and model are averages over whole rings, so astigmatism weakens the fringes of both in the same way. In the model, as
    in the spectrum of the windows, fringes that are too dense for a window are weakened. Outside the fitted band all curves
    except the data are extrapolated.

    Parameters
    ----------
    cells : Cells
        Polar cells up to Nyquist.
    defocus : Defocus
        The fit.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    envelope : Envelope
        Envelope of the fit, with its amplitude K.
    background : Background
        Background of the fit.
    """
    rings = ring_cells(cells)
    total = envelope.amplitude * envelope.at(rings.u, defocus.mean_A, microscope)
    chi = phase(rings.u**2, defocus.mean_A, microscope, defocus.phase_shift_rad)
    fringe = 0.5 * (1.0 - ring_contrast(cells, rings, defocus, microscope) * np.cos(2.0 * chi))
    floor = background.at(rings.u)
    return pd.DataFrame(
        {
            "crpFrequency": rings.u,
            "rlnAngstromResolution": 1.0 / rings.u,
            "crpPsdData": rings.power,
            "crpPsdBackground": floor,
            "crpPsdEnvelope": total,
            "crpPsdModel": floor + total**2 * fringe,
        }
    )


def model_parameters(
    pixel_size_A: float, defocus: Defocus, microscope: Microscope, envelope: Envelope, background: Background
) -> dict[str, float]:
    """Return ``{column: value}`` of all parameters of the model. Units are Å, mm, eV, mrad, kV, ppm and degrees.

    Parameters
    ----------
    pixel_size_A : float
        Å per pixel of the spectrum.
    defocus : Defocus
        The fit.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    envelope : Envelope
        Envelope of the fit.
    background : Background
        Background of the fit.
    """
    q = float(np.hypot(background.slope_a, background.slope_b))
    turned = float(np.degrees(0.5 * np.arctan2(background.slope_b, background.slope_a)))
    return {
        "rlnMicrographPixelSize": pixel_size_A,
        "rlnVoltage": microscope.voltage_kV,
        "rlnSphericalAberration": microscope.cs_mm,
        "rlnAmplitudeContrast": microscope.amplitude_contrast,
        "rlnDefocusU": defocus.u_A,
        "rlnDefocusV": defocus.v_A,
        "rlnDefocusAngle": defocus.angle_deg,
        "rlnPhaseShift": float(np.degrees(defocus.phase_shift_rad)),
        "crpCtfK": envelope.amplitude,
        "crpCtfChromaticAberration": envelope.chromatic_mm,
        "crpCtfEnergySpread": envelope.energy_spread_eV,
        "crpCtfLensInstability": envelope.current_instability_ppm,
        "crpCtfConvergence": envelope.convergence_mrad,
        "crpCtfLongitudinalDrift": envelope.longitudinal_A,
        "crpCtfTransversalDrift": envelope.transversal_A,
        "crpCtfEnvelopeR0": 1.0,
        "crpCtfEnvelopeR1": envelope.linear_A,
        "crpCtfEnvelopeR2": envelope.quadratic_A2,
        "crpCtfBackgroundBase": background.base,
        "crpCtfBackgroundSqrtK": background.root,
        "crpCtfBackgroundSqrtU": background.slope + q,
        "crpCtfBackgroundSqrtV": background.slope - q,
        "crpCtfBackgroundSqrtAngle": turned,
        "crpCtfBackgroundR1": background.polynomial[0],
        "crpCtfBackgroundR2": background.polynomial[1],
        "crpCtfBackgroundR3": background.polynomial[2],
        **_hill_parameters("crpCtfBackgroundGaussian1", background.rise, background.first),
        **_hill_parameters("crpCtfBackgroundGaussian2", background.fall, background.second),
    }


def _hill_parameters(name: str, height: float, hill: Hill | None) -> dict[str, float]:
    values = (0.0,) * 5 if hill is None else hill.axes()
    parts = dict(zip(("CentreU", "CentreV", "SharpnessU", "SharpnessV", "Angle"), values, strict=True))
    return {f"{name}K": height, **{f"{name}{part}": value for part, value in parts.items()}}
