"""Step ``estimate_ctf_ctffind``: defocus, astigmatism and the resolution of Thon rings, as in CTFFIND4/5.

The amplitude spectrum of the plain average (`spectrum`) is correlated with |CTF| (`fit`). The equiphase average shows up to
which resolution the fit is good (`diagnostics`). By option the tilt of the specimen is found from tiles (`tilt`). Then the
spectra of the tiles are brought to the defocus of the centre (`tile_spectra`), and their sum is fitted instead of the whole
spectrum, because its rings reach a finer resolution.

References
----------
Rohou & Grigorieff 2015, J. Struct. Biol. 192:216, doi:10.1016/j.jsb.2015.08.008; Elferich et al. 2024, eLife
13:RP97227, doi:10.7554/eLife.97227. Known limits: The thickness of the specimen is not estimated. A tilt is reported, but
particles get the defocus of the centre. Below about 0.4 µm defocus there are too few rings in the band for a safe result.
The fitted resolution shows this.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cryopipe.config.ctf import EstimateCtfCtffind
from cryopipe.context import Context
from cryopipe.ctf.ctffind.diagnostics import (
    Profiles,
    aliasing_resolution_A,
    diagnostic_image,
    fit_resolution_A,
    iciness,
    make_profiles,
)
from cryopipe.ctf.ctffind.fit import Band, Fit, SearchRange, fit_ctf, refine, sector_influences
from cryopipe.ctf.ctffind.spectrum import Spectrum, make_spectrum
from cryopipe.ctf.ctffind.tile_spectra import common_spectrum, fit_image, tile_spectra
from cryopipe.ctf.ctffind.tilt import Tilt, fit_tilt
from cryopipe.ctf.defocus import Microscope
from cryopipe.ctf.micrograph import (
    CTF_COLUMNS,
    CtfFiles,
    CtfMicrograph,
    check_band,
    ctf_columns,
    estimate_ctfs,
    write_picture,
)
from cryopipe.ctf.sector_errors import DefocusError, defocus_error
from cryopipe.io.atomic import atomic_path, atomic_write
from cryopipe.items import Row

_COLUMNS = CTF_COLUMNS | {"crpCtfAliasingResolution": "float64", "crpIciness": "float64"}
_TILT_COLUMNS = {"crpCtfTilt": "float64", "crpCtfTiltAxis": "float64"}
#: Value of crpIciness if the spectrum ends before the ice ring. A measured value is a square, so it is not negative.
_UNKNOWN_ICE = -1.0
#: Finest resolution of the first fit, as in CTFFIND4. Up to this resolution a search can distinguish neighbouring rings.
_FIRST_RESOLUTION_A = 5.0
#: Significance below which rings count as not found. The search tries some 3e5 combinations; on noise the best of them
#: reaches 4.5 to 5 standard deviations.
_LEAST_SIGNIFICANCE = 6.0
#: Equivalent noise bandwidth of the Hann window of the tiles along an axis, because neighbouring pixels are not independent.
_TAPER_PX = 1.5
#: A tilt is fitted up to this resolution or a finer one. Of 3.5, 4 and 5 Å it was the best on phantoms.
_TILT_RESOLUTION_A = 4.0
#: Range (Å) around the defocus from the tiles in which the spectrum at the common defocus is searched.
_NEAR_A = 1000.0
# Matplotlib's text layout keeps global state.
_DRAWING = threading.Lock()


@dataclass(frozen=True)
class CtfEstimate:
    """A fit with its figures of merit and pictures.

    Attributes
    ----------
    fit : Fit
        Defocus and score.
    error : DefocusError or None
        Standard deviations of the defocus, if the score has a maximum there.
    resolution_A, aliasing_A : float
        Resolution of the fit, and resolution at which rings are too close for the box.
    iciness : float or None
        Strength of the ice ring.
    profiles : Profiles
        One-dimensional averages.
    image : ndarray ``[box, box]`` float32
        Left half data, right half model.
    image_pixel_size_A : float
        Pixel size that belongs to ``image``.
    tilt : Tilt or None
        Tilt, if it was asked for. The fit is then that of the centre of the micrograph.
    """

    fit: Fit
    error: DefocusError | None
    resolution_A: float
    aliasing_A: float
    iciness: float | None
    profiles: Profiles
    image: np.ndarray
    image_pixel_size_A: float
    tilt: Tilt | None = None


def ctf_by_amplitudes(
    micrograph: np.ndarray,
    pixel_size_A: float,
    microscope: Microscope,
    params: EstimateCtfCtffind,
    *,
    threads: int = 1,
) -> CtfEstimate:
    """Estimate the CTF of one micrograph.

    Parameters
    ----------
    micrograph : ndarray ``[y, x]``
        Average of the aligned frames without dose weighting, which would remove the rings.
    pixel_size_A : float
        Pixel size of the micrograph.
    microscope : Microscope
        Voltage, Cs, amplitude contrast.
    params : EstimateCtfCtffind
        Parameters of the step.
    threads : int
        Threads of the Fourier transforms.

    Raises
    ------
    InputError
        The micrograph is too small or flat, or its pixels are too large for the requested resolutions.
    """
    check_band(pixel_size_A, params.min_resolution_A)
    spectrum = make_spectrum(
        micrograph,
        pixel_size_A,
        box=params.box,
        fit_pixel_size_A=params.fit_pixel_size_A,
        min_resolution_A=params.min_resolution_A,
        threads=threads,
    )
    limits = SearchRange(
        min_defocus_A=params.min_defocus_A,
        max_defocus_A=params.max_defocus_A,
        defocus_step_A=params.defocus_step_A,
        max_astigmatism_A=params.max_astigmatism_A,
        min_resolution_A=params.min_resolution_A,
        max_resolution_A=params.max_resolution_A or _FIRST_RESOLUTION_A,
        find_phase_shift=params.find_phase_shift,
        astigmatism_tolerance_A=params.astigmatism_tolerance_A,
        candidates=params.candidates,
    )
    fit = fit_ctf(spectrum, microscope, limits)
    profiles = make_profiles(spectrum, fit.defocus, microscope, params.min_resolution_A)
    ice, tilt = iciness(profiles), None
    if params.max_resolution_A is None and not params.find_tilt and fit.significance >= _LEAST_SIGNIFICANCE:
        fit, limits = _followed(spectrum, fit, profiles, microscope, limits)
        profiles = make_profiles(spectrum, fit.defocus, microscope, params.min_resolution_A)
    if params.find_tilt:
        tilt, spectrum, fit = _tilted(micrograph, pixel_size_A, microscope, params, limits, fit)
        profiles = make_profiles(spectrum, fit.defocus, microscope, params.min_resolution_A)
    # If the rings as a whole are not above the noise, agreement in a window is chance.
    seen = fit.significance / (1.0 if tilt is None else _TAPER_PX) >= _LEAST_SIGNIFICANCE
    resolution = fit_resolution_A(profiles, params.min_resolution_A) if seen else params.min_resolution_A
    band = Band(spectrum, limits.min_resolution_A, limits.max_resolution_A)
    moves = sector_influences(band, fit, microscope, free=4 if params.find_phase_shift else 3)
    return CtfEstimate(
        fit=fit,
        error=defocus_error(moves, fit.defocus),
        resolution_A=resolution,
        aliasing_A=aliasing_resolution_A(profiles, fit.defocus.mean_A, microscope),
        iciness=ice,
        profiles=profiles,
        image=diagnostic_image(spectrum, fit.defocus, microscope, resolution),
        image_pixel_size_A=spectrum.pixel_size_A,
        tilt=tilt,
    )


def _followed(
    spectrum: Spectrum, fit: Fit, profiles: Profiles, microscope: Microscope, limits: SearchRange
) -> tuple[Fit, SearchRange]:
    """Refine a fit up to the resolution to which it follows the rings, where the phase depends most on the defocus."""
    seen_A = fit_resolution_A(profiles, limits.min_resolution_A)
    if seen_A >= limits.max_resolution_A:
        return fit, limits
    limits = replace(limits, max_resolution_A=seen_A)
    return refine(Band(spectrum, limits.min_resolution_A, seen_A), fit.defocus, microscope, limits), limits


def _tilted(
    micrograph: np.ndarray,
    pixel_size_A: float,
    microscope: Microscope,
    params: EstimateCtfCtffind,
    limits: SearchRange,
    fit: Fit,
) -> tuple[Tilt, Spectrum, Fit]:
    """Return the tilt, the spectrum of the tiles at the defocus of the centre and its fit. ``fit`` is that without tilt."""
    image, fitted_A = fit_image(micrograph, pixel_size_A, params.fit_pixel_size_A)
    tiles = tile_spectra(image, fitted_A, params.box * 3 // 8 * 2, min_resolution_A=params.min_resolution_A)

    def around(fit: Fit, near: Tilt | None) -> tuple[Tilt, Spectrum, Fit]:
        tilt, mean_A = fit_tilt(
            tiles,
            fit.defocus,
            microscope,
            coarse_A=params.min_resolution_A,
            fine_A=min(limits.max_resolution_A, _TILT_RESOLUTION_A),
            defocus_range_A=(params.min_defocus_A, params.max_defocus_A),
            near=near,
        )
        centre, offsets = replace(fit.defocus, mean_A=mean_A), tilt.offsets_A(tiles)
        spectrum = common_spectrum(tiles, offsets, centre, microscope, min_resolution_A=params.min_resolution_A)
        reach = replace(limits, min_defocus_A=max(mean_A - _NEAR_A, _NEAR_A / 2), max_defocus_A=mean_A + _NEAR_A)
        return tilt, spectrum, fit_ctf(spectrum, microscope, reach)

    first, _, centred = around(fit, None)
    # The second round uses the astigmatism of the centre, not that of the blurred rings.
    return around(centred, first)


def avrot_text(estimate: CtfEstimate, name: str) -> str:
    """Return CTFFIND's ``_avrot.txt``: frequency, average, equiphase average, fit, correlation, noise level."""
    p = estimate.profiles
    d = estimate.fit.defocus
    noise = 2.0 / np.sqrt(np.maximum(p.pixels, 1.0))
    head = (
        f"# Input file: {name} ; rows: spatial frequency (1/A); rotational average; equiphase average; CTF fit; "
        f"quality of fit; 2 sigma of noise\n# defocus 1 {d.u_A:.2f} A, defocus 2 {d.v_A:.2f} A, azimuth "
        f"{d.angle_deg:.2f} deg, "
        f"phase shift {d.phase_shift_rad:.4f} rad, score {estimate.fit.score:.5f}, fitted to "
        f"{estimate.resolution_A:.2f} A\n"
    )
    rows = (p.k, p.radial, p.equiphase, p.model, p.correlation, noise)
    return head + "".join(" ".join(f"{v:.6g}" for v in row) + "\n" for row in rows)


def save_profiles(path: Path, estimate: CtfEstimate, title: str) -> None:
    """Plot the equiphase average, the fit and their correlation over the spatial frequency."""
    p = estimate.profiles
    shown = p.k > 1.0 / 40.0
    scale = np.percentile(np.abs(p.equiphase[shown]), 98)
    with _DRAWING:
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.plot(
            p.k[shown], p.equiphase[shown] / max(scale, 1e-12), color="tab:blue", lw=0.9, label="equiphase average"
        )
        axes.plot(p.k[shown], 2.0 * p.model[shown] - 1.0, color="tab:orange", lw=0.7, label="|CTF| (scaled)")
        axes.plot(p.k[shown], p.correlation[shown], color="tab:green", lw=1.4, label="correlation")
        axes.axvline(1.0 / estimate.resolution_A, color="0.3", ls="--", lw=1)
        axes.set(xlabel="spatial frequency [1/Å]", ylim=(-1.3, 1.6), title=title)
        axes.legend(fontsize="small", ncols=3, loc="upper right")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=90)


def measure(micrograph: CtfMicrograph, params: EstimateCtfCtffind) -> Row:
    """Estimate the CTF of one micrograph, write its pictures and return its new columns."""
    item = micrograph.item
    estimate = ctf_by_amplitudes(micrograph.image, micrograph.pixel_size_A, micrograph.microscope, params)
    d = estimate.fit.defocus
    image = micrograph.diagnostic("ctf.mrc")
    write_picture(image, micrograph.picture("ctf"), estimate.image, estimate.image_pixel_size_A)
    atomic_write(micrograph.diagnostic("avrot.txt"), avrot_text(estimate, micrograph.path.name))
    title = (
        f"{item}: {d.u_A / 1e4:.2f} / {d.v_A / 1e4:.2f} µm, {d.angle_deg:.0f}°, rings to {estimate.resolution_A:.1f} Å"
    )
    if estimate.tilt is not None:
        title += f", tilt {estimate.tilt.tilt_deg:.0f}°"
    save_profiles(micrograph.picture("epa"), estimate, title)
    row = ctf_columns(
        d, image=image, merit=estimate.fit.score, resolution_A=estimate.resolution_A, error=estimate.error
    )
    row |= {
        "crpCtfAliasingResolution": estimate.aliasing_A,
        "crpIciness": _UNKNOWN_ICE if estimate.iciness is None else estimate.iciness,
    }
    if estimate.tilt is not None:
        row |= {"crpCtfTilt": estimate.tilt.tilt_deg, "crpCtfTiltAxis": estimate.tilt.axis_deg}
    return row


def main(inputs: dict[str, Path], outputs: dict[str, Path], params: EstimateCtfCtffind, context: Context) -> None:
    """Estimate the CTFs of a batch. The input is ``micrographs``."""
    columns = _COLUMNS | (_TILT_COLUMNS if params.find_tilt else {})
    files = CtfFiles(diagnostics=("ctf.mrc", "avrot.txt"), pictures=("ctf", "epa"))
    estimate = partial(measure, params=params)
    estimate_ctfs(inputs, outputs, params, context, estimate=estimate, columns=columns, files=files)
