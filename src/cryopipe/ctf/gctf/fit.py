"""The defocus whose |CTF| correlates best with a logarithmic spectrum, and the resolution of the fit, as in Gctf.

K. Zhang 2016, doi:10.1016/j.jsb.2015.11.003: a global search on the rotational average, a local one in two dimensions,
and the equiphase average for the resolution of the fit. `validation` computes how self-consistent a fit is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage, optimize

from cryopipe.ctf.defocus import Defocus, Microscope, equivalent_k2, phase, rings_from_A
from cryopipe.ctf.gctf.points import Points, pixels_of, polar_cells
from cryopipe.ctf.gctf.spectrum import LogSpectrum
from cryopipe.ctf.sector_errors import DefocusError, defocus_error
from cryopipe.kernels.rings import equiphase_average

#: Number of mean defoci of the global search that go on. Maxima one ring apart have similar scores, so the first may be wrong.
_PEAKS = 5
#: Number of starting points that are refined; each of these defoci has seven astigmatisms. A choice: each costs a refinement.
_STARTS = 4
#: Finest resolution of the first fit, as in Gctf. Up to this resolution a search can distinguish neighbouring rings.
_FIRST_RESOLUTION_A = 4.0
#: Rings that are seen to a resolution coarser than this share of the coarse end leave no band for a second fit.
_FOLLOWED_FROM = 0.4
#: Samples of the equiphase average per pixel of the spectrum: Gctf's default.
_OVERSAMPLING = 4
#: The fit ends where the correlation over three fringes stays below this. A choice: a smaller value accepts noise at finer
#: resolution, a larger one stops at a single poor fringe.
_FOLLOWED = 0.4
#: Significance below which rings count as not found. On noise the best of the search reaches 4.3 standard deviations, with
#: and without phase shift.
_LEAST_SIGNIFICANCE = 6.0
_SHIFTS = np.radians(np.arange(0.0, 180.0, 10.0))
#: In the simplex one radian of phase shift corresponds to so many Å of defocus.
_A_PER_RAD = 1000.0


@dataclass(frozen=True)
class LogFit:
    """A fitted defocus, its correlation and the resolution of the fit (Å).

    ``k``, ``equiphase``, ``model`` and ``local_correlation`` ``[n]`` are the equiphase profile, |CTF| and their
    correlation in a window, over the spatial frequency (1/Å). ``error`` has the standard deviations of the defocus, if the
    correlation has a maximum there.
    """

    defocus: Defocus
    score: float
    resolution_A: float
    k: np.ndarray
    equiphase: np.ndarray
    model: np.ndarray
    local_correlation: np.ndarray
    error: DefocusError | None = None


def fit_log_spectrum(
    spectrum: LogSpectrum,
    microscope: Microscope,
    *,
    defoci_A: np.ndarray,
    astigmatism_A: float,
    coarse_A: float,
    fine_A: float | None,
    b_factor_A2: float,
    find_phase_shift: bool = False,
) -> LogFit:
    """Fit defocus, astigmatism and, if asked for, the phase shift of a phase plate.

    Parameters
    ----------
    spectrum : LogSpectrum
        From :func:`cryopipe.ctf.gctf.spectrum.log_spectrum`.
    microscope : Microscope
        Voltage, Cs, amplitude contrast.
    defoci_A : ndarray
        Mean defoci of the global search.
    astigmatism_A : float
        U - V of the astigmatic starting points.
    coarse_A, fine_A : float
        Band of the fit. Without ``fine_A`` it ends at 4 Å. Then a second fit begins at the first maximum after the first zero of
        the CTF and ends where the first one follows the rings, if that is finer.
    b_factor_A2 : float
        Weight of high frequencies, exp(-B k² / 4).
    find_phase_shift : bool
        Also search phase shifts of 0 to 170° and refine the best. The result is in [0, π).
    """
    unit = 1.0 / (spectrum.box * spectrum.pixel_size_A)
    everything = pixels_of(spectrum.values, spectrum.pixel_size_A)
    first_A = fine_A or _FIRST_RESOLUTION_A
    pixels = everything.within(coarse_A, first_A)
    cells = polar_cells(pixels, unit)
    rings = polar_cells(Points(pixels.k2, pixels.cos2 * 0 + 1, pixels.sin2 * 0, pixels.values, pixels.weights), unit)
    shifts = _SHIFTS if find_phase_shift else np.zeros(1)
    scores = mean_defocus_scores(rings, Defocus(0.0), defoci_A, shifts, microscope, b_factor_A2)  # [shift, defocus]
    apart = 0.5 / (microscope.wavelength_A * float(pixels.k2.max()))
    peaks = [(float(defoci_A[i]), float(shifts[scores[:, i].argmax()])) for i in _peaks(defoci_A, scores.max(0), apart)]
    half = astigmatism_A / 2.0
    turned = [(half * np.cos(t), half * np.sin(t)) for t in np.arange(6) * np.pi / 3.0]
    starts = [Defocus(z, float(a), float(b), shift) for z, shift in peaks for a, b in [(0.0, 0.0), *turned]]
    starts.sort(key=lambda d: -cells.correlation(d, microscope, b_factor_A2))
    free = 4 if find_phase_shift else 3
    refined = [refine(cells, start, microscope, b_factor_A2, 200.0, free) for start in starts[:_STARTS]]
    best = max(refined, key=lambda d: cells.correlation(d, microscope, b_factor_A2))

    fit = _final(
        everything, spectrum, best, microscope, bands=[(coarse_A, first_A)] * 2, b_factor_A2=b_factor_A2, free=free
    )
    if fine_A is not None or fit.resolution_A > _FOLLOWED_FROM * coarse_A:
        return fit
    # the rings alone, as far as they go; a phase shift is only seen at the coarse end
    start_A = coarse_A if find_phase_shift else min(coarse_A, rings_from_A(fit.defocus, microscope))
    bands = [(start_A, min(first_A, fit.resolution_A)), (coarse_A, min(first_A, fit.resolution_A))]
    return _final(everything, spectrum, fit.defocus, microscope, bands=bands, b_factor_A2=b_factor_A2, free=free)


def _final(
    everything: Points,
    spectrum: LogSpectrum,
    start: Defocus,
    microscope: Microscope,
    *,
    bands: Sequence[tuple[float, float]],
    b_factor_A2: float,
    free: int,
) -> LogFit:
    """Refine in the first of two bands (Å) and describe the result by its score in the second."""
    (coarse_A, fine_A), (scored_from_A, scored_to_A) = bands
    points = everything.within(coarse_A, fine_A)
    d = refine(points, start, microscope, b_factor_A2, 40.0, free)
    d = replace(d, phase_shift_rad=d.phase_shift_rad % np.pi)
    moves = points.influences(d, microscope, b_factor_A2, free=free)
    fit = describe(
        everything,
        d,
        spectrum,
        microscope,
        coarse_A=scored_from_A,
        fine_A=scored_to_A,
        b_factor_A2=b_factor_A2,
    )
    return replace(fit, error=defocus_error(moves, d))


def mean_defocus_scores(
    points: Points,
    at: Defocus,
    means_A: np.ndarray,
    shifts_rad: np.ndarray,
    microscope: Microscope,
    b_factor_A2: float,
) -> np.ndarray:
    """Return :meth:`Points.correlation` ``[shifts, means]`` for many mean defoci and phase shifts at once.

    Parameters
    ----------
    points : Points
        Pixels or cells of the band ``[points]``.
    at : Defocus
        Only its astigmatism is used.
    means_A : ndarray ``[means]``
        Mean defoci, Å.
    shifts_rad : ndarray ``[shifts]``
        Phase shifts, radians.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    b_factor_A2 : float
        Weight of high frequencies, exp(-B k² / 4), Å².
    """
    weights = points.weights * np.exp(-0.25 * b_factor_A2 * points.k2)
    weights = weights / weights.sum()
    values = points.values - np.einsum("i,i->", weights, points.values)
    values /= np.sqrt(max(np.einsum("i,i,i->", weights, values, values), 1e-30))
    bent = at.a_A * points.cos2 + at.b_A * points.sin2
    result = np.empty((len(shifts_rad), len(means_A)))
    for i, mean in enumerate(means_A):
        chi = phase(points.k2, mean + bent, microscope)
        models = np.abs(np.sin(chi + shifts_rad[:, None]))  # [shifts, points]
        centre = np.einsum("sp,p->s", models, weights)
        spread = np.einsum("sp,sp,p->s", models, models, weights) - centre**2
        result[:, i] = np.einsum("sp,p->s", models, weights * values) / np.sqrt(np.maximum(spread, 1e-30))
    return result


def _peaks(defoci: np.ndarray, scores: np.ndarray, apart_A: float) -> list[int]:
    chosen: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if all(abs(defoci[index] - defoci[other]) >= apart_A for other in chosen):
            chosen.append(int(index))
        if len(chosen) == _PEAKS:
            break
    return chosen


def refine(
    points: Points, start: Defocus, microscope: Microscope, b_factor_A2: float, size_A: float, free: int = 3
) -> Defocus:
    """Maximise the correlation by the simplex method, which needs no derivatives (|sin| has kinks).

    Parameters
    ----------
    points : Points
        Points of the band.
    start : Defocus
        Where the simplex starts.
    microscope : Microscope
        Voltage, Cs, amplitude contrast.
    b_factor_A2 : float
        Weight of high frequencies.
    size_A : float
        Size of the first simplex, Å.
    free : int
        3 (mean defocus and astigmatism) or 4 (phase shift, too).
    """

    def unpack(p: np.ndarray) -> Defocus:
        shift = float(p[3]) / _A_PER_RAD if free == 4 else start.phase_shift_rad
        return Defocus(float(p[0]), float(p[1]), float(p[2]), shift)

    def cost(p: np.ndarray) -> float:
        return -points.correlation(unpack(p), microscope, b_factor_A2)

    first = np.array([start.mean_A, start.a_A, start.b_A, start.phase_shift_rad * _A_PER_RAD])[:free]
    simplex = first + size_A * np.concatenate([np.zeros((1, free)), np.eye(free)])
    options = {"initial_simplex": simplex, "xatol": 1.0, "fatol": 1e-7, "maxfev": 250}
    d = unpack(optimize.minimize(cost, first, method="Nelder-Mead", options=options).x)
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
    """Return score, equiphase profile and resolution of a given defocus.

    Parameters
    ----------
    points : Points
        All pixels of the spectrum (`pixels_of`).
    defocus : Defocus
        The given defocus.
    spectrum : LogSpectrum
        Only its box and pixel size are used.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    coarse_A, fine_A : float
        Band of the fit, Å. The score is that of the band. The profiles go on to Nyquist.
    b_factor_A2 : float
        Weight of high frequencies in the score, Å².
    """
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
    score = inside.correlation(defocus, microscope, b_factor_A2)
    # If the rings as a whole are not above the noise, agreement in a window is chance.
    seen = score * np.sqrt(inside.independent(b_factor_A2)) >= _LEAST_SIGNIFICANCE
    return LogFit(
        defocus,
        score,
        _resolution_A(k, local_correlation, coarse_A) if seen else coarse_A,
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
    """Return the resolution from which a good correlation stays poor over several bins, ``coarse_A`` if it is never good."""
    good = np.flatnonzero((correlation > 0.7) & (k >= 1.0 / coarse_A))
    if not len(good):
        return coarse_A
    poor = ndimage.minimum_filter1d((correlation < _FOLLOWED).astype(int), 2 * _OVERSAMPLING, origin=-_OVERSAMPLING)
    after = np.flatnonzero(poor[good[0] :])
    return float(1.0 / k[good[0] + after[0]]) if len(after) else float(1.0 / k[-1])
