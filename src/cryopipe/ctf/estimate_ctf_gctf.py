"""Step ``estimate_ctf_gctf``: defocus, astigmatism and their self-consistency from logarithmic amplitudes, as in Gctf.

This is a second opinion: it shares only the formula of the CTF with the other estimators. Its spectrum is the logarithm of
the mean amplitudes of windows (`gctf.spectrum`). The fit is a global search on the rotational average and then a local
search in two dimensions, by option with the phase shift of a phase plate (`gctf.fit`). The resolution comes from the
equiphase average. Fits of parts of the band and of the micrograph validate the result (`gctf.validation`).

References
----------
K. Zhang 2016, J. Struct. Biol. 193:1, doi:10.1016/j.jsb.2015.11.003. Known limits: There is no defocus per particle or
frame. With an astigmatism of several thousand Å the rings vanish from the rotational average that is searched.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from cryopipe.config.ctf import EstimateCtfGctf
from cryopipe.context import Context
from cryopipe.ctf.defocus import Microscope, phase
from cryopipe.ctf.gctf.fit import LogFit, fit_log_spectrum
from cryopipe.ctf.gctf.spectrum import LogSpectrum, log_spectrum
from cryopipe.ctf.gctf.validation import validation_score
from cryopipe.ctf.micrograph import (
    CTF_COLUMNS,
    CtfFiles,
    CtfMicrograph,
    check_band,
    ctf_columns,
    estimate_ctfs,
    write_picture,
)
from cryopipe.io.atomic import atomic_write
from cryopipe.items import Row

#: Step of the polar image on which the picture is smoothed, and standard deviation along the rings, degrees.
_TURN_DEG, _SMOOTHED_DEG = 0.5, 4.0


def ctf_by_log_amplitudes(
    micrograph: np.ndarray, pixel_size_A: float, microscope: Microscope, params: EstimateCtfGctf
) -> tuple[LogFit, LogSpectrum]:
    """Estimate the CTF of one micrograph.

    Parameters
    ----------
    micrograph : ndarray ``[y, x]``
        Average of the aligned frames without dose weighting.
    pixel_size_A : float
        Pixel size of the micrograph.
    microscope : Microscope
        Voltage, Cs, amplitude contrast.
    params : EstimateCtfGctf
        Parameters of the step.

    Raises
    ------
    InputError
        The micrograph is flat or too small, or its pixels are too large for the band.
    """
    check_band(pixel_size_A, params.min_resolution_A)
    spectrum = log_spectrum(
        micrograph,
        pixel_size_A,
        box=params.box,
        working_pixel_A=params.fit_pixel_size_A,
        convolution_px=params.convolution_px,
    )
    fit = fit_log_spectrum(
        spectrum,
        microscope,
        defoci_A=np.arange(params.min_defocus_A, params.max_defocus_A + 1.0, params.defocus_step_A),
        astigmatism_A=params.astigmatism_A,
        coarse_A=params.min_resolution_A,
        fine_A=params.max_resolution_A,
        b_factor_A2=params.b_factor_A2,
        find_phase_shift=params.find_phase_shift,
    )
    return fit, spectrum


def diagnostic_image(fit: LogFit, spectrum: LogSpectrum, microscope: Microscope) -> np.ndarray:
    """Return ``[box, box]`` float32, 0 to 1: the left half is the spectrum, the right half |CTF| up to the fit's resolution.

    The spectrum is averaged along the rings over some 10° and scaled at each radius, so that weak rings are visible.
    """
    box = spectrum.box
    right = _along_rings(np.fft.fftshift(spectrum.values, axes=0)[:, : box // 2])
    # Friedel mate: (x, y) -> (-x, -y)
    left = np.clip(0.5 + 0.25 * np.roll(right[::-1, ::-1], (1, 0), axis=(0, 1)), 0.0, 1.0)
    unit = 1.0 / (box * spectrum.pixel_size_A)
    ky, kx = (np.arange(box)[:, None] - box // 2) * unit, np.arange(box // 2)[None, :] * unit
    k2 = kx**2 + ky**2
    d = fit.defocus
    local = d.mean_A + (d.a_A * (kx**2 - ky**2) + d.b_A * 2.0 * kx * ky) / np.where(k2 > 0, k2, 1.0)
    model = np.abs(np.sin(phase(k2, local, microscope, d.phase_shift_rad)))
    model = np.where(k2 <= 1.0 / fit.resolution_A**2, model, 0.5)
    return np.concatenate([left, model], axis=1).astype(np.float32)


def _along_rings(right: np.ndarray) -> np.ndarray:
    """Return a half plane ``[box, box // 2]`` smoothed along rings, each ring divided by its standard deviation."""
    half = right.shape[1]
    angles = np.radians(np.arange(-90.0, 90.0, _TURN_DEG))
    radii = np.arange(int(np.sqrt(2.0) * half) + 1)
    y, x = (np.outer(radii, f(angles)) for f in (np.sin, np.cos))
    polar = ndimage.map_coordinates(right, [y + half, x], order=1, mode="nearest")  # [radius, angle]
    # a rotation by 180° gives the Friedel mate, so the angles are periodic
    smooth = ndimage.gaussian_filter1d(polar, _SMOOTHED_DEG / _TURN_DEG, axis=1, mode="wrap")
    smooth = ndimage.gaussian_filter1d(smooth, 0.7, axis=0)
    spread = np.sqrt(ndimage.uniform_filter1d((smooth**2).mean(axis=1), 9, mode="nearest"))
    scaled = smooth / np.maximum(spread, 1e-12)[:, None]
    y, x = np.mgrid[-half:half, 0:half]
    place = (np.degrees(np.arctan2(y, x)) + 90.0) / _TURN_DEG
    padded = np.concatenate([scaled, scaled[:, :1]], axis=1)
    result: np.ndarray = ndimage.map_coordinates(padded, [np.hypot(x, y), place], order=1, mode="nearest")
    return result


def epa_text(fit: LogFit) -> str:
    """Return Gctf's ``_EPA.log``: resolution (Å), |CTF|, equiphase average, correlation, one line per bin."""
    rows = zip(fit.k[1:], fit.model[1:], fit.equiphase[1:], fit.local_correlation[1:], strict=True)
    return "Resolution |CTF| EPA CC\n" + "".join(f"{1 / k:.4f} {m:.5f} {e:.6f} {c:.5f}\n" for k, m, e, c in rows)


def measure(micrograph: CtfMicrograph, params: EstimateCtfGctf) -> Row:
    """Estimate the CTF of one micrograph, write its pictures and return its new columns."""
    microscope = micrograph.microscope
    fit, spectrum = ctf_by_log_amplitudes(micrograph.image, micrograph.pixel_size_A, microscope, params)
    shown = diagnostic_image(fit, spectrum, microscope)
    image = micrograph.diagnostic("ctf.mrc")
    write_picture(image, micrograph.picture("ctf"), shown, spectrum.pixel_size_A)
    atomic_write(micrograph.diagnostic("EPA.log"), epa_text(fit))
    validation = validation_score(
        spectrum,
        fit,
        microscope,
        coarse_A=params.min_resolution_A,
        fine_A=params.max_resolution_A or fit.resolution_A,
        b_factor_A2=params.b_factor_A2,
    )
    row = ctf_columns(fit.defocus, image=image, merit=fit.score, resolution_A=fit.resolution_A, error=fit.error)
    return row | {"rlnCtfValidationScore": validation}


def main(inputs: dict[str, Path], outputs: dict[str, Path], params: EstimateCtfGctf, context: Context) -> None:
    """Estimate the CTFs of a batch. The input is ``micrographs``."""
    columns = CTF_COLUMNS | {"rlnCtfValidationScore": "float64"}
    files = CtfFiles(diagnostics=("ctf.mrc", "EPA.log"), pictures=("ctf",))
    estimate = partial(measure, params=params)
    estimate_ctfs(inputs, outputs, params, context, estimate=estimate, columns=columns, files=files)
