"""Fit the power spectrum of one micrograph at the pixel size that suits it, and compute all criteria.

The parts are in `periodogram`, `stages`, `enhanced_spectrum`, `criteria` and `ring_significance`. The step is
`estimate_ctf_xmipp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from cryopipe.config.ctf import EstimateCtfXmipp
from cryopipe.ctf.defocus import Defocus, Microscope, from_uv
from cryopipe.ctf.xmipp.background import Background
from cryopipe.ctf.xmipp.criteria import (
    astigmatic_validity_A,
    correlation_90,
    first_zero,
    fit_correlation,
    histogram_normality,
    iceness,
    radial_integral,
    ring_margins,
    spectrum_stability,
)
from cryopipe.ctf.xmipp.enhanced_spectrum import EnhancedPsd, enhance_psd
from cryopipe.ctf.xmipp.envelope import (
    Envelope,
    azimuthal_defocus,
    envelope_resolution_A,
)
from cryopipe.ctf.xmipp.fit import background_of
from cryopipe.ctf.xmipp.periodogram import Periodogram, averaged_periodogram, downsampled_micrograph
from cryopipe.ctf.xmipp.polar_average import Cells, polar_cells
from cryopipe.ctf.xmipp.ring_significance import fit_resolution_A, ring_significance
from cryopipe.ctf.xmipp.stages import PsdFit, Settings, Start, fit_psd
from cryopipe.ctf.xmipp.values import envelope_of
from cryopipe.errors import InputError

#: Columns of the criteria, in the order of `fit_periodogram`.
CRITERIA = (
    "crpCtfFirstZero",
    "crpCtfFirstZeroRatio",
    "crpCtfEnvelopeResolution",
    "crpCtfDamping",
    "crpCtfCorr13",
    "crpCtfFittingScore",
    "crpCtfMargin",
    "crpCtfFirstMinFirstZeroRatio",
    "crpCtfAstigmaticValidity",
    "crpCtfPsdCorr90",
    "crpCtfPsdRadialIntegral",
    "crpCtfPsdVariance",
    "crpCtfPsdPca1",
    "crpCtfPsdPcaRunsTest",
    "crpCtfIceness",
    "crpCtfHistogramNormality",
)
#: Pixel sizes (Å) that xmipp tries before that of the micrograph.
_FURTHER_PIXELS_A = (1.75, 2.75)
#: Least number of pixels of a downsampled micrograph along its shorter side.
_LEAST_SHAPE = 300
#: Criteria that a downsampled spectrum must pass, or the next pixel size is tried. They are xmipp's limits of 2020, except that
#: of the correlation, which a fit with unsmoothed cells reaches less easily.
_LEAST_FIRST_ZERO_A, _LARGEST_ZERO_RATIO = 5.0, 1.1
_COARSEST_ENVELOPE_A = 20.0
_LEAST_MARGIN, _LARGEST_SD_RATIO = 1.0, 10.0
#: Limit of the correlation. On noise it reaches 0.08, on ten real micrographs of 1.5 megapixels it is 0.28 to 0.48.
_LEAST_CORR13 = 0.15
_LEAST_DEFOCUS_A = 500.0


@dataclass(frozen=True)
class PreviousCtf:
    """A CTF from which the fit starts: defocus in Å, angle and phase shift in degrees."""

    u_A: float
    v_A: float
    angle_deg: float
    phase_shift_deg: float = 0.0

    def defocus(self) -> Defocus:
        """Return the defocus as a tensor, with U >= V."""
        return from_uv(self.u_A, self.v_A, self.angle_deg, self.phase_shift_deg)


@dataclass(frozen=True)
class SpectrumEstimate:
    """A fitted spectrum with its criteria.

    Attributes
    ----------
    fit : PsdFit
        Defocus and solution.
    envelope, background : Envelope, Background
        Envelope and background of the model.
    periodogram, enhanced, cells : Periodogram, EnhancedPsd, Cells
        Spectra of the downsampled micrograph.
    resolution_A, figure_of_merit : float
        Resolution of the fit and correlation with the data.
    criteria : dict
        ``{column: value}``.
    downsampling : float
        Pixel size of the spectrum over that of the micrograph.
    """

    fit: PsdFit
    envelope: Envelope
    background: Background
    periodogram: Periodogram
    enhanced: EnhancedPsd
    cells: Cells
    resolution_A: float
    figure_of_merit: float
    criteria: dict[str, float]
    downsampling: float


def ctf_by_power_spectrum(
    micrograph: np.ndarray,
    pixel_size_A: float,
    microscope: Microscope,
    params: EstimateCtfXmipp,
    previous: PreviousCtf | None = None,
) -> SpectrumEstimate:
    """Fit the power spectrum of one micrograph at the first downsampling that passes the criteria.

    Parameters
    ----------
    micrograph : ndarray ``[y, x]``
        Plain average of the aligned frames.
    pixel_size_A : float
        Pixel size of the micrograph.
    microscope : Microscope
        Voltage, Cs, amplitude contrast.
    params : EstimateCtfXmipp
        Parameters of the step.
    previous : PreviousCtf, optional
        Start of the fit. Its defocus may change by ``params.previous_change`` of U, or not at all with
        ``params.fix_previous``.

    Returns
    -------
    SpectrumEstimate
        Result at the first pixel size whose spectrum passes. If none does, at that with the best crpCtfCorr13.

    Raises
    ------
    InputError
        The micrograph is flat or too small, its pixels are too large, or there is no defocus for ``fix_previous``.
    """
    if previous is None and params.fix_previous:
        raise InputError(
            "fix_previous keeps the defocus of a previous CTF, but there is none. Give a table with rlnDefocusU, "
            "rlnDefocusV and rlnDefocusAngle, or set estimate_ctf_xmipp.fix_previous to false."
        )
    pixels = _working_pixels(micrograph.shape, pixel_size_A, params)
    if params.max_frequency / pixels[0] < 1.0 / 12.0:
        raise InputError(
            f"with pixels of {pixels[0]:g} Å and max_frequency {params.max_frequency:g} the band ends at "
            f"{pixels[0] / params.max_frequency:.1f} Å, but it must reach 12 Å. Use less binned micrographs."
        )
    settings = Settings(
        params.min_frequency,
        params.max_frequency,
        np.arange(params.min_defocus_A, params.max_defocus_A + 1.0, params.defocus_step_A),
        params.max_astigmatism_A,
        params.find_phase_shift,
    )
    sd = float(micrograph.std(dtype=np.float64))
    if not np.isfinite(sd) or sd == 0:
        raise InputError(
            "the micrograph is flat or has values that are not finite, so it has no spectrum to fit. Leave it out."
        )
    normality = histogram_normality(micrograph)
    tried: list[SpectrumEstimate] = []
    for working_A in pixels:
        image, fitted_A = downsampled_micrograph(micrograph, pixel_size_A, working_A)
        periodogram = averaged_periodogram(
            image,
            fitted_A,
            window=params.window,
            overlap=params.overlap,
            border_windows=params.border_windows,
            taper_fraction=params.taper_fraction,
        )
        estimate = fit_periodogram(periodogram, microscope, settings, _start(previous, params))
        criteria = estimate.criteria | {"crpCtfHistogramNormality": normality}
        tried.append(replace(estimate, criteria=criteria, downsampling=fitted_A / pixel_size_A))
        if passes(criteria):
            return tried[-1]
    return max(tried, key=lambda e: e.criteria["crpCtfCorr13"])


def fit_periodogram(
    periodogram: Periodogram, microscope: Microscope, settings: Settings, start: Start | None = None
) -> SpectrumEstimate:
    """Fit one averaged periodogram and compute all criteria except the normality of the grey values.

    Parameters
    ----------
    periodogram : Periodogram
        Periodogram of one micrograph.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    settings : Settings
        Band and search range.
    start : Start, optional
        A known defocus. Without one it is searched.
    """
    cells = polar_cells(periodogram)
    fit = fit_psd(cells, microscope, settings, start)
    solution, defocus = fit.solution, fit.defocus
    envelope = envelope_of(solution.values, solution.reference, float(solution.heights[0]) ** 0.5)
    enhanced = enhance_psd(periodogram.power, periodogram.pixel_size_A)
    nyquist = 0.5 / periodogram.pixel_size_A
    zero_A, zero_ratio = first_zero(defocus, microscope)
    azimuths = np.pi * np.arange(180) / 180.0
    border = envelope.at(np.full(180, nyquist), azimuthal_defocus(defocus, azimuths), microscope)
    margin, sd_ratio = ring_margins(enhanced, defocus, microscope)
    values = (
        zero_A,
        zero_ratio,
        envelope_resolution_A(envelope, defocus, microscope, nyquist),
        float(border.max()),
        fit_correlation(fit.cells, solution, microscope, zeros=(1, 3)),
        solution.cost,
        margin,
        sd_ratio,
        astigmatic_validity_A(defocus, microscope),
        correlation_90(enhanced),
        radial_integral(enhanced),
        *spectrum_stability(periodogram),
        iceness(periodogram),
    )
    coarse_A = periodogram.pixel_size_A / settings.min_frequency
    resolution = fit_resolution_A(*ring_significance(cells, defocus, microscope), coarse_A, zero_A or coarse_A)
    return SpectrumEstimate(
        fit=fit,
        envelope=envelope,
        background=background_of(solution),
        periodogram=periodogram,
        enhanced=enhanced,
        cells=cells,
        resolution_A=resolution,
        figure_of_merit=fit_correlation(fit.cells, solution, microscope),
        criteria=dict(zip(CRITERIA[:-1], values, strict=True)),
        downsampling=1.0,
    )


def passes(criteria: Mapping[str, float]) -> bool:
    """Return whether a spectrum is good enough, so that no other downsampling is tried."""
    return (
        criteria["crpCtfFirstZero"] >= _LEAST_FIRST_ZERO_A
        and criteria["crpCtfFirstZeroRatio"] <= _LARGEST_ZERO_RATIO
        and criteria["crpCtfEnvelopeResolution"] <= _COARSEST_ENVELOPE_A
        and criteria["crpCtfMargin"] >= _LEAST_MARGIN
        and criteria["crpCtfFirstMinFirstZeroRatio"] <= _LARGEST_SD_RATIO
        and criteria["crpCtfCorr13"] >= _LEAST_CORR13
    )


def _working_pixels(shape: tuple[int, ...], pixel_size_A: float, params: EstimateCtfXmipp) -> list[float]:
    """Return the pixel sizes to try, in order, without those that make the micrograph too small; its own one is the last."""
    if not params.downsample:
        return [pixel_size_A]
    room_A = min(shape) * pixel_size_A / _LEAST_SHAPE
    return [p for p in _FURTHER_PIXELS_A if pixel_size_A * 1.02 < p <= room_A] + [pixel_size_A]


def _start(previous: PreviousCtf | None, params: EstimateCtfXmipp) -> Start | None:
    if previous is None:
        return None
    defocus = previous.defocus()
    if not defocus.v_A >= _LEAST_DEFOCUS_A:
        raise InputError(
            f"the previous CTF has the defoci {previous.u_A:g} and {previous.v_A:g} Å, but a fit can only start from "
            f"{_LEAST_DEFOCUS_A:g} Å or more. Correct the table or set estimate_ctf_xmipp.use_previous to false."
        )
    return Start(defocus, 0.0 if params.fix_previous else params.previous_change * defocus.u_A)
