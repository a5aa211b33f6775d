"""Defocus, astigmatism and phase shift that correlate best with a flattened amplitude spectrum.

The method is CTFFIND4's (Rohou & Grigorieff 2015, doi:10.1016/j.jsb.2015.08.008) with two changes. The exhaustive search
uses radial profiles of 10° sectors. So it includes astigmatism at the cost of a search on one profile, and needs no starting
angle. The refinement has analytic derivatives in (z, a, b), where zero astigmatism is not a special point. The score is
Pearson's correlation over the half plane (that of CTFFIND does not subtract the mean and is smaller).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize

from cryopipe.ctf.ctffind.spectrum import Spectrum
from cryopipe.ctf.defocus import Defocus, Microscope, phase
from cryopipe.ctf.sector_errors import fit_influences, sector_of

#: Number of sectors over 180°. Within one of 10° the defocus varies by at most ± 0.09 (U - V). Time grows with their number.
_SECTORS = 18
#: Pixels this close to the axes are left out, because image edges and camera rows and columns make them bright. CTFFIND4 leaves
#: out 10. Here the edges of the micrograph are tapered first.
_CROSS_PX = 4
#: Units of the variables of the minimiser (Å and radians). Both change the phase by the same order: 100 Å are 0.1 rad at 8 Å
#: and 300 kV.
_SCALE_A, _SCALE_RAD = 100.0, 0.1
#: A result farther from its start than this (Å) is not used. A choice: it is three rings at 4 Å and 300 kV, and defoci farther
#: away have starting points of their own.
_FARTHEST_A = 2500.0


@dataclass(frozen=True)
class SearchRange:
    """Range of the search: defocus, astigmatism U - V and resolutions in Å, and whether a phase shift is searched."""

    min_defocus_A: float
    max_defocus_A: float
    defocus_step_A: float
    max_astigmatism_A: float
    min_resolution_A: float
    max_resolution_A: float
    find_phase_shift: bool = False
    astigmatism_tolerance_A: float | None = None
    candidates: int = 5


@dataclass(frozen=True)
class Fit:
    """A fitted defocus, Pearson's correlation of spectrum and |CTF| in the band, and the number of pixels in the band."""

    defocus: Defocus
    score: float
    pixels: int

    @property
    def significance(self) -> float:
        """Score in units of its standard deviation for a given CTF on noise, 1/√pixels."""
        return self.score * float(np.sqrt(self.pixels))


class Band:
    """The Fourier pixels of half a plane between two resolutions, with frequency, direction and value of each.

    Parameters
    ----------
    spectrum : Spectrum
        Only its ``flattened`` part is used.
    coarse_A, fine_A : float
        Resolutions of the band. It ends at least one pixel before Nyquist.
    """

    def __init__(self, spectrum: Spectrum, coarse_A: float, fine_A: float) -> None:
        box = spectrum.box
        middle = box // 2
        y, x = np.mgrid[1 - middle : middle, 0:middle]
        x, y = x.ravel(), y.ravel()
        radius2 = x**2 + y**2
        unit = 1.0 / (box * spectrum.pixel_size_A)
        inside = (radius2 >= (1.0 / coarse_A / unit) ** 2) & (radius2 <= min(1.0 / fine_A / unit, middle - 1) ** 2)
        inside &= (x > _CROSS_PX) & (np.abs(y) > _CROSS_PX)
        x, y, radius2 = x[inside], y[inside], radius2[inside]
        self.unit = unit
        self.radius = np.sqrt(radius2)
        self.k2 = radius2 * unit**2
        self.cos2 = (x**2 - y**2) / radius2
        self.sin2 = 2.0 * x * y / radius2
        values = spectrum.flattened[y + middle, x + middle].astype(np.float64)
        self.values = values - values.mean()
        self.norm = float(np.linalg.norm(self.values))

    def chi(self, defocus: Defocus, microscope: Microscope) -> np.ndarray:
        """Return the phase at every pixel."""
        local = defocus.mean_A + defocus.a_A * self.cos2 + defocus.b_A * self.sin2
        return phase(self.k2, local, microscope, defocus.phase_shift_rad)


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    # BLAS would divide such a short product among threads and wait for them.
    return float(np.einsum("i,i->", a, b))


def score_and_gradient(band: Band, defocus: Defocus, microscope: Microscope) -> tuple[float, np.ndarray]:
    """Return the correlation with |CTF| and its derivatives by mean, a, b (1/Å) and phase shift (1/rad)."""
    pulls, score = _pulls(band, defocus, microscope)
    return score, pulls.sum(axis=0)


def _pulls(band: Band, defocus: Defocus, microscope: Microscope) -> tuple[np.ndarray, float]:
    """Return the share ``[n, 4]`` of every pixel in the derivatives of the score, and the score."""
    chi = band.chi(defocus, microscope)
    sine, cosine = np.sin(chi), np.cos(chi)
    model = np.abs(sine)
    centred = model - model.mean()
    spread2 = _dot(centred, centred)
    product = _dot(band.values, model)
    scale = 1.0 / (band.norm * np.sqrt(spread2))
    # d r = [Σ A dm - (Σ A m / Σ m²) Σ m dm] / (|A| |m|), with dm = sign(sin χ) cos χ dχ
    pull = (scale * band.values - (scale * product / spread2) * centred) * np.where(sine < 0, -cosine, cosine)
    by_defocus = pull * band.k2 * (np.pi * microscope.wavelength_A)
    return np.stack([by_defocus, by_defocus * band.cos2, by_defocus * band.sin2, pull], axis=1), product * scale


def sector_influences(band: Band, fit: Fit, microscope: Microscope, *, free: int) -> np.ndarray | None:
    """Return how far each sector moves a fit (`cryopipe.ctf.sector_errors.influences`).

    Parameters
    ----------
    band : Band
        Pixels that were fitted.
    fit : Fit
        The fit.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    free : int
        3 (mean defocus and astigmatism) or 4 (phase shift, too).
    """

    def pulls(defocus: Defocus) -> np.ndarray:
        return _pulls(band, defocus, microscope)[0][:, :free]

    slope = np.pi * microscope.wavelength_A * float(band.k2.max())
    return fit_influences(pulls, fit.defocus, free=free, sectors=sector_of(band.cos2, band.sin2), rad_per_A=slope)


def search(band: Band, microscope: Microscope, limits: SearchRange) -> list[Defocus]:
    """Search mean defocus, astigmatism and phase shift exhaustively. Return the best starting points, best first.

    Mean defoci of two starting points differ by at least half the defocus that moves the rings by one at the fine end.
    """
    step = limits.defocus_step_A
    reach = int(np.ceil(limits.max_astigmatism_A / 2.0 / step))
    means = np.arange(limits.min_defocus_A, limits.max_defocus_A + 0.5 * step, step)
    defoci = np.concatenate([means[0] + step * np.arange(-reach, 0), means, means[-1] + step * np.arange(1, reach + 1)])
    bins, sums, counts = _sector_profiles(band)
    offsets = _astigmatism_grid(limits.max_astigmatism_A / 2.0, 1.5 * step)
    twice = 2.0 * np.pi * (np.arange(_SECTORS) + 0.5) / _SECTORS
    jumps = np.rint((offsets[:, :1] * np.cos(twice) + offsets[:, 1:] * np.sin(twice)) / step).astype(int) + reach
    shifts = np.radians(np.arange(0.0, 180.0, 10.0)) if limits.find_phase_shift else np.zeros(1)
    best_score = np.full(len(means), -np.inf)
    best: list[Defocus] = [Defocus(m) for m in means]
    n = counts.sum()
    for shift in shifts:
        model = np.abs(np.sin(phase((bins[:, None] * band.unit) ** 2, defoci[None, :], microscope, float(shift))))
        tables = np.stack([sums @ model, counts @ model, counts @ model**2])  # [3, sector, defocus]
        for (a, b), jump in zip(offsets, jumps, strict=True):
            total = np.zeros((3, len(means)))
            for s in range(_SECTORS):
                total += tables[:, s, jump[s] : jump[s] + len(means)]
            variance = np.maximum(total[2] - total[1] ** 2 / n, 1e-12)
            score = total[0] / (band.norm * np.sqrt(variance)) - _penalty(a, b, limits, int(n))
            for index in np.flatnonzero(score > best_score):
                best_score[index] = score[index]
                best[index] = Defocus(float(means[index]), float(a), float(b), float(shift))
    fine_k2 = float(band.k2.max())
    apart = 0.5 / (microscope.wavelength_A * fine_k2)
    return _separate_peaks(best, best_score, apart, limits.candidates)


def _sector_profiles(band: Band) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the radii of the bins and, per sector and radius, the sum of values and the number of pixels."""
    theta = 0.5 * np.arctan2(band.sin2, band.cos2) % np.pi
    sector = np.minimum((theta * (_SECTORS / np.pi)).astype(int), _SECTORS - 1)
    radius = np.rint(band.radius).astype(int)
    first, last = radius.min(), radius.max()
    flat = sector * (last - first + 1) + radius - first
    size = _SECTORS * (last - first + 1)
    sums = np.bincount(flat, weights=band.values, minlength=size).reshape(_SECTORS, -1)
    counts = np.bincount(flat, minlength=size).reshape(_SECTORS, -1).astype(np.float64)
    return np.arange(first, last + 1, dtype=np.float64), sums, counts


def _astigmatism_grid(largest_A: float, step_A: float) -> np.ndarray:
    """Return (a, b) on a square lattice within a disc ``[g, 2]``, the origin first."""
    n = int(largest_A / step_A)
    b, a = np.mgrid[-n : n + 1, -n : n + 1] * step_A
    points = np.stack([a.ravel(), b.ravel()], axis=1)
    size = np.hypot(*points.T)
    order = np.argsort(size, kind="stable")
    return points[order][size[order] <= largest_A + 1e-9]


def _penalty(a_A: float, b_A: float, limits: SearchRange, pixels: int) -> float:
    if limits.astigmatism_tolerance_A is None:
        return 0.0
    return 4.0 * (a_A**2 + b_A**2) / (2.0 * limits.astigmatism_tolerance_A**2 * pixels)


def _separate_peaks(points: Sequence[Defocus], scores: np.ndarray, apart_A: float, count: int) -> list[Defocus]:
    chosen: list[Defocus] = []
    for index in np.argsort(-scores, kind="stable"):
        if all(abs(points[index].mean_A - other.mean_A) >= apart_A for other in chosen):
            chosen.append(points[index])
        if len(chosen) == count:
            break
    return chosen


def refine(band: Band, start: Defocus, microscope: Microscope, limits: SearchRange) -> Fit:
    """Maximise the score from ``start`` by L-BFGS.

    ``start`` is returned if the minimiser ends more than 2500 Å away, at a negative defocus, or at a lower score.

    Parameters
    ----------
    band : Band
        Pixels from which the score is computed.
    start : Defocus
        Where the minimiser starts.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    limits : SearchRange
        States whether the phase shift is free, and the penalty on astigmatism. Its ranges are not used.
    """
    free = 4 if limits.find_phase_shift else 3
    scale = np.array([_SCALE_A, _SCALE_A, _SCALE_A, _SCALE_RAD])[:free]
    pixels = len(band.k2)

    def unpack(p: np.ndarray) -> Defocus:
        v = p * scale
        shift = float(v[3]) if free == 4 else start.phase_shift_rad
        return Defocus(float(v[0]), float(v[1]), float(v[2]), shift)

    def objective(p: np.ndarray) -> tuple[float, np.ndarray]:
        d = unpack(p)
        score, gradient = score_and_gradient(band, d, microscope)
        cost, slope = -score, -gradient[:free]
        if limits.astigmatism_tolerance_A is not None:
            cost += _penalty(d.a_A, d.b_A, limits, pixels)
            slope[1:3] += 4.0 * np.array([d.a_A, d.b_A]) / (limits.astigmatism_tolerance_A**2 * pixels)
        return cost, slope * scale

    first = np.array([start.mean_A, start.a_A, start.b_A, start.phase_shift_rad])[:free] / scale
    result = optimize.minimize(objective, first, jac=True, method="L-BFGS-B", options={"gtol": 1e-7, "ftol": 1e-12})
    found = unpack(result.x)
    near = abs(found.mean_A - start.mean_A) < _FARTHEST_A and found.v_A > 0
    if not (result.fun <= objective(first)[0] and near):
        found = start
    return Fit(found, score_and_gradient(band, found, microscope)[0], pixels)


def fit_ctf(spectrum: Spectrum, microscope: Microscope, limits: SearchRange) -> Fit:
    """Fit defocus, astigmatism and, if asked for, phase shift.

    Parameters
    ----------
    spectrum : Spectrum
        From :func:`cryopipe.ctf.ctffind.spectrum.make_spectrum`.
    microscope : Microscope
        Voltage, Cs, amplitude contrast.
    limits : SearchRange
        Range of the search. The search uses the spectrum up to 5 Å, the refinement up to ``max_resolution_A``.

    Returns
    -------
    Fit
        With U >= V and a phase shift in [0, π).
    """
    coarse = Band(spectrum, limits.min_resolution_A, max(limits.max_resolution_A, 5.0))
    fits = [refine(coarse, start, microscope, limits) for start in search(coarse, microscope, limits)]
    best = max(fits, key=lambda f: f.score)
    if limits.max_resolution_A < 5.0:
        best = refine(
            Band(spectrum, limits.min_resolution_A, limits.max_resolution_A), best.defocus, microscope, limits
        )
    d = best.defocus
    return replace(best, defocus=replace(d, phase_shift_rad=d.phase_shift_rad % np.pi))
