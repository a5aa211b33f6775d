"""How good a CTF fit is: equiphase average, resolution to which rings are fitted, aliasing limit, ice ring, pictures.

Rohou & Grigorieff 2015, doi:10.1016/j.jsb.2015.08.008; Sheth et al. 2015 for the equiphase average; Elferich et al.
2024, doi:10.7554/eLife.97227 for the ice-ring measure (CTFFIND5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from cryopipe.ctf.ctffind.fit import Band
from cryopipe.ctf.ctffind.spectrum import Spectrum
from cryopipe.ctf.defocus import Defocus, Microscope, equivalent_k2, phase

#: In CTFFIND4 the half-width of the window is at least this share of the frequencies.
_BINS_AT_LEAST = 40
#: CTFFIND4's limits of the windowed correlation (`fit_resolution_A`), and how many bins above them are needed.
_LOW, _HIGH, _GOOD, _SEEN = 0.1, 0.5, 0.66, 3
#: CTFFIND4's limit: rings closer than this many bins are aliased.
_ALIASED_BINS = 4.0
#: Angles over which the picture is averaged: a choice, wide enough to show weak rings, too narrow to blur astigmatism.
_SHOWN_TURNS_DEG = tuple(range(-8, 9, 2))


@dataclass(frozen=True)
class Profiles:
    """One-dimensional summaries of a fit, all over the same frequencies ``[n]``.

    Attributes
    ----------
    k : ndarray
        1/Å.
    radial : ndarray
        Rotational average of the amplitude.
    equiphase : ndarray
        Flattened spectrum averaged over pixels of equal phase, at the frequency at which the mean defocus has that phase.
    model : ndarray
        |CTF| of the mean defocus.
    correlation : ndarray
        Correlation of ``equiphase`` and ``model`` in a window around each frequency.
    pixels : ndarray
        Number of pixels in each bin of ``equiphase``.
    """

    k: np.ndarray
    radial: np.ndarray
    equiphase: np.ndarray
    model: np.ndarray
    correlation: np.ndarray
    pixels: np.ndarray


def fringe_period(k: np.ndarray, mean_defocus_A: float, microscope: Microscope) -> np.ndarray:
    """Return the distance in 1/Å of neighbouring maxima of |CTF| at frequencies ``k``."""
    wavelength, cs_A = microscope.wavelength_A, microscope.cs_mm * 1e7
    slope = np.abs(2.0 * wavelength * mean_defocus_A * k - 2.0 * cs_A * wavelength**3 * k**3)
    return 1.0 / np.maximum(slope, 1e-12)


def equiphase_average(spectrum: Spectrum, defocus: Defocus, microscope: Microscope) -> tuple[np.ndarray, np.ndarray]:
    """Return the equiphase average ``[box // 2]`` of the flattened spectrum and the number of pixels of each bin.

    Bin r is the frequency r / (box · pixel size). Beyond the turning point of the phase (weak defocus, high resolution)
    pixels are averaged at their own frequency.
    """
    band = Band(spectrum, 1e6, spectrum.pixel_size_A)
    k2 = equivalent_k2(band.chi(defocus, microscope), defocus, microscope)
    position = np.sqrt(np.where(np.isfinite(k2) & (k2 > 0), k2, band.k2)) / band.unit
    n = spectrum.box // 2
    low = np.floor(position).astype(int)
    share = position - low
    usable = low < n - 1
    sums, weights = np.zeros(n), np.zeros(n)
    for bins, weight in ((low, 1.0 - share), (low + 1, share)):
        sums += np.bincount(bins[usable], weights=(weight * band.values)[usable], minlength=n)[:n]
        weights += np.bincount(bins[usable], weights=weight[usable], minlength=n)[:n]
    return sums / np.maximum(weights, 1e-9), weights


def make_profiles(spectrum: Spectrum, defocus: Defocus, microscope: Microscope, min_resolution_A: float) -> Profiles:
    """Average the spectrum rotationally and over equal phases, and correlate the equiphase average with the model.

    The correlation is computed in a window around each frequency. Its half-width is that of CTFFIND4, the larger of two: 1/40
    of the frequencies, or one fringe plus a tenth of a fringe for each extremum before it.

    Parameters
    ----------
    spectrum : Spectrum
        Its amplitude is averaged rotationally, its flattened part over equal phases.
    defocus : Defocus
        The fit.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    min_resolution_A : float
        Coarsest resolution of the fit, Å. The correlation is 0 at coarser ones.
    """
    n = spectrum.box // 2
    unit = 1.0 / (spectrum.box * spectrum.pixel_size_A)
    k = np.arange(n) * unit
    equiphase, pixels = equiphase_average(spectrum, defocus, microscope)
    chi = phase(k**2, defocus.mean_A, microscope, defocus.phase_shift_rad)
    model = np.abs(np.sin(chi))
    extrema = np.floor(np.maximum.accumulate(chi) / np.pi + 0.5)
    period = fringe_period(np.maximum(k, unit), defocus.mean_A, microscope) / unit
    half = np.clip(np.maximum(n / _BINS_AT_LEAST, (1.0 + 0.1 * extrema) * period), 2, n / 4)
    correlation = np.zeros(n)
    first = max(int(np.ceil(1.0 / (min_resolution_A * unit))), 1)
    for r in range(first, n):
        width = round(half[r])
        window = slice(max(first, r - width), min(n, r + width + 1))
        correlation[r] = _pearson(equiphase[window], model[window])
    axis = np.arange(spectrum.box) - n
    radius = np.rint(np.hypot(axis[:, None], axis[None, :])).astype(int).ravel()
    radial = np.bincount(radius, weights=spectrum.amplitude.ravel())[:n] / np.bincount(radius)[:n]
    return Profiles(k, radial, equiphase, model, correlation, pixels)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 4:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0


def fit_resolution_A(profiles: Profiles, min_resolution_A: float) -> float:
    """Return the resolution in Å up to which rings are fitted (CTFFIND4's rule), ``min_resolution_A`` if there are none.

    The fit ends where the windowed correlation is below 0.1 after more than 3 bins above 0.1, or below 0.5 after more
    than 3 bins above 0.66.
    """
    above_low = above_good = 0
    first = int(np.searchsorted(profiles.k, 1.0 / min_resolution_A))
    for r in range(first, len(profiles.k)):
        value = profiles.correlation[r]
        if (above_low > _SEEN and value < _LOW) or (above_good > _SEEN and value < _HIGH):
            return float(1.0 / profiles.k[r])
        above_low += value > _LOW
        above_good += value > _GOOD
    return float(1.0 / profiles.k[-1]) if above_low > _SEEN else min_resolution_A


def aliasing_resolution_A(profiles: Profiles, mean_defocus_A: float, microscope: Microscope) -> float:
    """Return the resolution in Å from which maxima of |CTF| are closer than 4 bins, or Nyquist if they never are."""
    unit = profiles.k[1]
    dense = fringe_period(profiles.k[1:], mean_defocus_A, microscope) < _ALIASED_BINS * unit
    index = int(np.argmax(dense)) + 1 if dense.any() else len(profiles.k) - 1
    return float(1.0 / profiles.k[index])


def iciness(profiles: Profiles) -> float | None:
    """Return (mean amplitude at 3.9-3.5 Å / that at 30-6 Å)², or None if the spectrum ends before 3.5 Å."""
    if profiles.k[-1] < 1.0 / 3.5:
        return None
    ring = (profiles.k >= 1.0 / 3.9) & (profiles.k <= 1.0 / 3.5)
    low = (profiles.k >= 1.0 / 30.0) & (profiles.k <= 1.0 / 6.0)
    return float((profiles.radial[ring].mean() / profiles.radial[low].mean()) ** 2)


def diagnostic_image(spectrum: Spectrum, defocus: Defocus, microscope: Microscope, resolution_A: float) -> np.ndarray:
    """Return an image ``[box, box]`` float32, 0 to 1: the left half is the spectrum, the right half |CTF|.

    The spectrum is averaged over a few degrees and scaled at each radius, so that weak rings are visible, too.

    Parameters
    ----------
    spectrum : Spectrum
        Its flattened part is shown.
    defocus : Defocus
        The fit.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    resolution_A : float
        Resolution of the fit, Å. Beyond it the right half is grey (0.5).
    """
    box = spectrum.box
    axis = np.arange(box) - box // 2
    radius = np.hypot(axis[:, None], axis[None, :])
    turns = [ndimage.rotate(spectrum.flattened, t, reshape=False, order=1, mode="nearest") for t in _SHOWN_TURNS_DEG]
    smooth = ndimage.gaussian_filter(np.mean(turns, axis=0), 0.7)
    bins = np.minimum(np.rint(radius).astype(int), box // 2)
    power = np.bincount(bins.ravel(), weights=smooth.ravel() ** 2) / np.bincount(bins.ravel())
    rms = np.sqrt(ndimage.uniform_filter1d(power, 9, mode="nearest"))
    data = np.clip(0.5 + 0.25 * smooth / np.maximum(rms[bins], 1e-12), 0.0, 1.0)
    kx, ky = spectrum.frequencies()
    k2 = kx**2 + ky**2
    safe = np.where(k2 > 0, k2, 1.0)
    local = defocus.mean_A + (defocus.a_A * (kx**2 - ky**2) + defocus.b_A * 2 * kx * ky) / safe
    model = np.abs(np.sin(phase(k2, local, microscope, defocus.phase_shift_rad)))
    model = np.where(k2 <= 1.0 / resolution_A**2, model, 0.5)
    return np.where(axis[None, :] < 0, data, model).astype(np.float32)
