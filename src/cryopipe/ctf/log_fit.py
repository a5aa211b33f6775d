"""Defocus that correlates best with a logarithmic spectrum, and how far and how safely it does (Gctf's way).

K. Zhang 2016, doi:10.1016/j.jsb.2015.11.003: a global search on the rotational average, a local one in two dimensions,
the equiphase average for the resolution of the fit, and self-consistency: the fit repeated in parts of the band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, optimize

from cryopipe.ctf.log_spectrum import LogSpectrum
from cryopipe.ctf.model import Defocus, Microscope, equivalent_k2, phase
from cryopipe.kernels.rings import equiphase_average

_AZIMUTHS = 36
_PEAKS = 5
_STARTS = 4
_OVERSAMPLING = 4
_AXIS_PX = 3
_FOLLOWED = 0.4
_SCAN_A = np.arange(-2000.0, 2001.0, 20.0)


@dataclass(frozen=True)
class Points:
    """Pixels or polar cells of a spectrum ``[n]``: k² (1/Å²), cos 2θ, sin 2θ, value, and weight (pixels)."""

    k2: np.ndarray
    cos2: np.ndarray
    sin2: np.ndarray
    values: np.ndarray
    weights: np.ndarray

    def within(self, coarse_A: float, fine_A: float) -> Points:
        """Return the points between two resolutions."""
        inside = (self.k2 >= 1.0 / coarse_A**2) & (self.k2 <= 1.0 / fine_A**2)
        return Points(*(a[inside] for a in (self.k2, self.cos2, self.sin2, self.values, self.weights)))

    def correlation(self, defocus: Defocus, microscope: Microscope, b_factor_A2: float) -> float:
        """Return the weighted Pearson correlation of values and |CTF| times its envelope, both times the envelope."""
        local = defocus.mean_A + defocus.a_A * self.cos2 + defocus.b_A * self.sin2
        model = np.abs(np.sin(phase(self.k2, local, microscope, defocus.phase_shift_rad)))
        weights = self.weights * np.exp(-0.25 * b_factor_A2 * self.k2)
        weights = weights / weights.sum()
        model = model - np.einsum("i,i->", weights, model)
        values = self.values - np.einsum("i,i->", weights, self.values)
        norm = np.einsum("i,i,i->", weights, model, model) * np.einsum("i,i,i->", weights, values, values)
        return float(np.einsum("i,i,i->", weights, model, values) / np.sqrt(max(norm, 1e-30)))


@dataclass(frozen=True)
class LogFit:
    """A fitted defocus, its correlation, the resolution of the fit (Å) and the self-consistency, 0..1.

    ``k``, ``equiphase``, ``model`` and ``local_correlation`` ``[n]`` are the equiphase profile, |CTF| and their
    correlation in a window, over the spatial frequency (1/Å).
    """

    defocus: Defocus
    score: float
    resolution_A: float
    validation: float
    k: np.ndarray
    equiphase: np.ndarray
    model: np.ndarray
    local_correlation: np.ndarray


def pixels_of(spectrum: LogSpectrum) -> Points:
    """Return every pixel of the half plane but those next to the axes, where edges and camera rows shine."""
    box = spectrum.box
    y, x = np.mgrid[0:box, 0 : box // 2]
    y = np.where(y >= box // 2, y - box, y)
    radius2 = x**2 + y**2
    use = (x > _AXIS_PX) & (np.abs(y) > _AXIS_PX) & (radius2 < (box // 2) ** 2)
    x, y, radius2 = x[use], y[use], radius2[use]
    k2 = radius2 / (box * spectrum.pixel_size_A) ** 2
    values = spectrum.values[:, : box // 2][use].astype(np.float64)
    return Points(k2, (x**2 - y**2) / radius2, 2.0 * x * y / radius2, values, np.ones(len(x)))


def polar_cells(points: Points, unit: float) -> Points:
    """Average pixels over cells of one radius (multiples of ``unit``, 1/Å) and 5°."""
    theta = 0.5 * np.arctan2(points.sin2, points.cos2) % np.pi
    azimuth = np.minimum((theta * (_AZIMUTHS / np.pi)).astype(int), _AZIMUTHS - 1)
    cell = np.rint(np.sqrt(points.k2) / unit).astype(int) * _AZIMUTHS + azimuth
    count = np.bincount(cell)
    seen = count > 0
    k2, cos2, sin2, values = (
        np.bincount(cell, weights=field)[seen] / count[seen]
        for field in (points.k2, points.cos2, points.sin2, points.values)
    )
    return Points(k2, cos2, sin2, values, count[seen].astype(np.float64))


def fit_log_spectrum(
    spectrum: LogSpectrum,
    microscope: Microscope,
    *,
    defoci_A: np.ndarray,
    astigmatism_A: float,
    coarse_A: float,
    fine_A: float,
    b_factor_A2: float,
) -> LogFit:
    """Fit defocus and astigmatism.

    Parameters
    ----------
    spectrum : LogSpectrum
        Of :func:`cryopipe.ctf.log_spectrum.log_spectrum`.
    microscope : Microscope
        Voltage, Cs, amplitude contrast.
    defoci_A : ndarray
        Mean defoci of the global search.
    astigmatism_A : float
        U - V of the astigmatic starting points.
    coarse_A, fine_A : float
        Band of the fit.
    b_factor_A2 : float
        Weight of high frequencies, exp(-B k² / 4).
    """
    unit = 1.0 / (spectrum.box * spectrum.pixel_size_A)
    everything = pixels_of(spectrum)
    pixels = everything.within(coarse_A, fine_A)
    cells = polar_cells(pixels, unit)
    rings = polar_cells(Points(pixels.k2, pixels.cos2 * 0 + 1, pixels.sin2 * 0, pixels.values, pixels.weights), unit)
    scores = np.array([rings.correlation(Defocus(float(z)), microscope, b_factor_A2) for z in defoci_A])
    peaks = _peaks(defoci_A, scores, 0.5 / (microscope.wavelength_A * float(pixels.k2.max())))
    half = astigmatism_A / 2.0
    turned = [(half * np.cos(t), half * np.sin(t)) for t in np.arange(6) * np.pi / 3.0]
    starts = [Defocus(z, float(a), float(b)) for z in peaks for a, b in [(0.0, 0.0), *turned]]
    starts.sort(key=lambda d: -cells.correlation(d, microscope, b_factor_A2))
    refined = [_refine(cells, start, microscope, b_factor_A2, 200.0) for start in starts[:_STARTS]]
    best = max(refined, key=lambda d: cells.correlation(d, microscope, b_factor_A2))
    best = _refine(pixels, best, microscope, b_factor_A2, 40.0)
    return describe(everything, best, spectrum, microscope, coarse_A=coarse_A, fine_A=fine_A, b_factor_A2=b_factor_A2)


def _peaks(defoci: np.ndarray, scores: np.ndarray, apart_A: float) -> list[float]:
    chosen: list[float] = []
    for index in np.argsort(-scores, kind="stable"):
        if all(abs(defoci[index] - other) >= apart_A for other in chosen):
            chosen.append(float(defoci[index]))
        if len(chosen) == _PEAKS:
            break
    return chosen


def _refine(points: Points, start: Defocus, microscope: Microscope, b_factor_A2: float, size_A: float) -> Defocus:
    """Maximise the correlation by the simplex method (no derivatives: |sin| has kinks)."""

    def cost(p: np.ndarray) -> float:
        return -points.correlation(Defocus(*(float(v) for v in p)), microscope, b_factor_A2)

    first = np.array([start.mean_A, start.a_A, start.b_A])
    simplex = first + size_A * np.concatenate([np.zeros((1, 3)), np.eye(3)])
    options = {"initial_simplex": simplex, "xatol": 1.0, "fatol": 1e-7, "maxfev": 250}
    found = optimize.minimize(cost, first, method="Nelder-Mead", options=options).x
    d = Defocus(*(float(v) for v in found))
    return d if d.v_A > 0 else start


def describe(
    points: Points,
    defocus: Defocus,
    spectrum: LogSpectrum,
    microscope: Microscope,
    *,
    coarse_A: float,
    fine_A: float,
    b_factor_A2: float,
) -> LogFit:
    """Return score, equiphase profile, resolution and self-consistency of a given defocus."""
    unit = 1.0 / (spectrum.box * spectrum.pixel_size_A) / _OVERSAMPLING
    n = spectrum.box // 2 * _OVERSAMPLING
    local = defocus.mean_A + defocus.a_A * points.cos2 + defocus.b_A * points.sin2
    k2 = equivalent_k2(phase(points.k2, local, microscope, defocus.phase_shift_rad), defocus, microscope)
    position = np.sqrt(np.where(np.isfinite(k2) & (k2 > 0), k2, points.k2)) / unit
    profile, _ = equiphase_average(points.values.astype(np.float32), position.astype(np.float32), n)
    k = np.arange(n) * unit
    model = np.abs(np.sin(phase(k**2, defocus.mean_A, microscope, defocus.phase_shift_rad)))
    local_correlation = _windowed(profile, model, k, coarse_A, defocus.mean_A * microscope.wavelength_A)
    inside = points.within(coarse_A, fine_A)
    return LogFit(
        defocus,
        inside.correlation(defocus, microscope, b_factor_A2),
        _resolution_A(k, local_correlation, coarse_A),
        self_consistency(inside, defocus, microscope, coarse_A=coarse_A, fine_A=fine_A),
        k,
        profile,
        model,
        local_correlation,
    )


def _windowed(profile: np.ndarray, model: np.ndarray, k: np.ndarray, coarse_A: float, slope: float) -> np.ndarray:
    """Return Pearson's correlation in a window of three fringes (slope = λ z, Å²) around each frequency."""
    result = np.zeros(len(k))
    first = int(np.searchsorted(k, 1.0 / coarse_A))
    for r in range(first, len(k)):
        # a fringe of |CTF| is as wide as 1 / (2 λ z k); at least two pixels, so that noise does not correlate
        width = int(np.clip(1.5 / (2.0 * slope * k[r]) / k[1], 4 * _OVERSAMPLING, len(k) // 6))
        window = slice(max(first, r - width), min(len(k), r + width + 1))
        a, b = profile[window] - profile[window].mean(), model[window] - model[window].mean()
        result[r] = np.einsum("i,i->", a, b) / np.sqrt(max(np.einsum("i,i->", a, a) * np.einsum("i,i->", b, b), 1e-30))
    return result


def _resolution_A(k: np.ndarray, correlation: np.ndarray, coarse_A: float) -> float:
    """Return where the correlation, once good, stays poor over a run of bins; ``coarse_A`` where it never is good."""
    good = np.flatnonzero((correlation > 0.7) & (k >= 1.0 / coarse_A))
    if not len(good):
        return coarse_A
    poor = ndimage.minimum_filter1d((correlation < _FOLLOWED).astype(int), 2 * _OVERSAMPLING, origin=-_OVERSAMPLING)
    after = np.flatnonzero(poor[good[0] :])
    return float(1.0 / k[good[0] + after[0]]) if len(after) else float(1.0 / k[-1])


def self_consistency(
    points: Points, defocus: Defocus, microscope: Microscope, *, coarse_A: float, fine_A: float
) -> float:
    """Return how well parts of the band, each searched anew around the fit, give the same mean defocus: 0..1.

    1 means no deviation, 0 one of half the distance of neighbouring rings at the part's fine end, in the mean over the
    coarse and the fine half (of k²) of the band.
    """
    middle = 1.0 / np.sqrt(0.5 * (1.0 / coarse_A**2 + 1.0 / fine_A**2))
    values = []
    for coarse, fine in _bands(coarse_A, middle, fine_A):
        part = points.within(coarse, fine)
        moved = [Defocus(defocus.mean_A + float(d), defocus.a_A, defocus.b_A) for d in _SCAN_A]
        found = float(_SCAN_A[int(np.argmax([part.correlation(d, microscope, 0.0) for d in moved]))])
        values.append(max(0.0, 1.0 - abs(found) / (0.5 * fine**2 / microscope.wavelength_A)))
    return float(np.mean(values))


def _bands(coarse_A: float, middle_A: float, fine_A: float) -> Sequence[tuple[float, float]]:
    return ((coarse_A, middle_A), (middle_A, fine_A))
