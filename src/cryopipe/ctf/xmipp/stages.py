"""From a periodogram to its model, stage by stage: initial defocus, radial profile, background, two dimensions.

The order is xmipp's (Sorzano et al. 2007, doi:10.1016/j.jsb.2007.08.013): first background and envelope of the radial
profile, then the defocus in it, then all parameters on the profile, then all parameters in the plane.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cryopipe.ctf.defocus import Defocus, Microscope
from cryopipe.ctf.xmipp.fit import Solution, SpectrumProblem
from cryopipe.ctf.xmipp.initial_defocus import find_defocus
from cryopipe.ctf.xmipp.polar_average import Cells, ring_cells, ring_contrast
from cryopipe.ctf.xmipp.values import DEFAULTS, Values

#: Number of maxima of the search from which a rough fit in the plane starts. A choice: maxima one ring apart have similar
#: scores, so the first may be wrong, and each costs one fit.
_CANDIDATES = 4
#: Least width (sd) of a background Gaussian, in frequencies of the first zero, so that it cannot fit a ring.
_WIDEST_RING = 0.35
#: B factor of the envelope at which a fit starts, Å²: a choice of the usual order.
_START_B_A2 = 100.0
#: The fit may change a searched defocus by this share of it (20 % as in xmipp).
_SEARCH_SHARE = 0.2
#: Slopes q of the background (Å^½) that are tried at the start: a grid within the bounds of the fit, in steps of a factor 2.
_SLOPES = (4.0, 8.0, 16.0, 32.0)
_ENVELOPE = ["convergence2", "spread2", "linear", "quadratic"]
_DRIFT = ["longitudinal2", "transversal2"]


@dataclass(frozen=True)
class Start:
    """Where the defocus starts and how far it may go.

    Attributes
    ----------
    defocus : Defocus
        Starting point.
    reach_A : float
        Largest change of z, a and b. With 0 the defocus is kept.
    """

    defocus: Defocus
    reach_A: float


@dataclass(frozen=True)
class Settings:
    """Digital frequencies of the band, search range of the defocus (Å), and whether a phase shift is fitted."""

    min_frequency: float
    max_frequency: float
    defoci_A: np.ndarray
    max_astigmatism_A: float
    find_phase_shift: bool


@dataclass(frozen=True)
class PsdFit:
    """A fitted spectrum.

    Attributes
    ----------
    defocus : Defocus
        Fitted defocus.
    solution : Solution
        All parameters. Its arrays belong to ``cells``.
    cells : Cells
        Polar cells of the band.
    microscope : Microscope
        Voltage, Cs, amplitude contrast.
    """

    defocus: Defocus
    solution: Solution
    cells: Cells
    microscope: Microscope


def fit_psd(cells: Cells, microscope: Microscope, settings: Settings, start: Start | None = None) -> PsdFit:
    """Fit defocus, envelope and background to polar cells.

    Parameters
    ----------
    cells : Cells
        From :func:`cryopipe.ctf.xmipp.polar_average.polar_cells`, up to Nyquist.
    microscope : Microscope
        Voltage, Cs, amplitude contrast.
    settings : Settings
        Band and search range.
    start : Start, optional
        A known defocus. Without one it is searched.
    """
    band = cells.within(settings.min_frequency / cells.pixel_size_A, settings.max_frequency / cells.pixel_size_A)
    rings = ring_cells(band)
    start = start or _searched(band, microscope, settings)
    profile = _fit_profile(band, rings, microscope, start)
    solution = _fit_plane(band, rings, microscope, settings, start, profile)
    return PsdFit(defocus_of(solution.values), solution, band, microscope)


def defocus_of(v: Values) -> Defocus:
    """Return the defocus of fitted values."""
    return Defocus(v["z"], v["a"], v["b"], v["phi"])


def _values(defocus: Defocus) -> Values:
    # π² α² Δ² u² = B u² / 4
    convergence = 1e3 * np.sqrt(_START_B_A2 / 4.0) / (np.pi * defocus.mean_A)
    place = {"z": defocus.mean_A, "a": defocus.a_A, "b": defocus.b_A, "phi": defocus.phase_shift_rad}
    return DEFAULTS | place | {"convergence2": float(convergence**2)}


def _bounds(start: Start) -> dict[str, tuple[float, float]]:
    d, r = start.defocus, start.reach_A
    return {
        "z": (max(d.mean_A - r, 200.0), d.mean_A + r),
        "a": (d.a_A - r, d.a_A + r),
        "b": (d.b_A - r, d.b_A + r),
    }


def _searched(band: Cells, microscope: Microscope, settings: Settings) -> Start:
    """Search the defocus, start rough fits in the plane from the best few, and return the one that explains most."""
    found = find_defocus(
        band,
        microscope,
        defoci_A=settings.defoci_A,
        max_astigmatism_A=settings.max_astigmatism_A,
        find_phase_shift=settings.find_phase_shift,
        candidates=_CANDIDATES,
    )
    names = ["z", "a", "b", "convergence2", "sq"] + (["phi"] if settings.find_phase_shift else [])
    trials = []
    for defocus in found:
        problem = SpectrumProblem(band, band.contrast(defocus, microscope), microscope, float(band.u.max()))
        reach = _bounds(Start(defocus, _SEARCH_SHARE * defocus.mean_A))
        trials.append(problem.fit(_with_slope(problem, _values(defocus)), names, reach, 8))
    best = defocus_of(min(trials, key=lambda s: s.cost).values)
    return Start(best, _SEARCH_SHARE * best.mean_A)


def _with_slope(problem: SpectrumProblem, v: Values) -> Values:
    return min(({**v, "sq": q} for q in _SLOPES), key=lambda p: problem.solve(p).cost)


def _fit_profile(band: Cells, rings: Cells, microscope: Microscope, start: Start) -> tuple[Values, np.ndarray]:
    """Fit the radial profile (background, envelope, defocus, all). Return the values and the expected power ``[rings]``."""
    contrast = ring_contrast(band, rings, start.defocus, microscope)
    reference = float(band.u.max())
    problem = SpectrumProblem(rings, contrast, microscope, reference)
    v = _with_slope(problem, _values(start.defocus))
    v = problem.fit(v, ["convergence2", "sq"], {}, 10).values
    v = _with_hill(problem, v, 1, start.defocus, microscope)
    free = [] if start.reach_A == 0 else ["z"]
    # on the profile the defocus may move by at most half a ring at the fine end; beyond, it would fit another ring
    ring_A = 0.5 / (microscope.wavelength_A * reference**2)
    near = _bounds(Start(start.defocus, min(start.reach_A, ring_A)))
    bounds = near | _hill_bounds(start.defocus, microscope, band)
    v = problem.fit(v, [*free, "convergence2", "linear", "sq", "c1", "g1"], bounds, 15).values
    expected = problem.solve(v).model
    problem = SpectrumProblem(rings, contrast, microscope, reference, expected)
    v = _with_hill(problem, v, 2, start.defocus, microscope)
    solution = problem.fit(v, [*free, *_ENVELOPE, "sq", "c1", "g1", "c2", "g2"], bounds, 25)
    return solution.values, solution.model


def _hill_bounds(defocus: Defocus, microscope: Microscope, cells: Cells) -> dict[str, tuple[float, float]]:
    low, reference = float(cells.u.min()), float(cells.u.max())
    zero = 1.0 / np.sqrt(microscope.wavelength_A * defocus.mean_A)
    sharpest = float(np.log(0.5 / (_WIDEST_RING * zero) ** 2))
    bounds: dict[str, tuple[float, float]] = {}
    for i in (1, 2):
        bounds[f"g{i}"] = (float(np.log(0.5 / reference**2)), sharpest)
        bounds[f"c{i}"] = (low, reference)
    return bounds


def _with_hill(problem: SpectrumProblem, v: Values, i: int, defocus: Defocus, microscope: Microscope) -> Values:
    """Return the values with that Gaussian of a coarse grid which lowers the cost most."""
    low, high = _hill_bounds(defocus, microscope, problem.cells)[f"g{i}"]
    centres = np.linspace(float(problem.cells.u[0]), float(problem.cells.u[-1]), 10)
    trials = [{**v, f"c{i}": float(c), f"g{i}": float(g)} for c in centres for g in np.linspace(low, high, 4)]
    return min(trials, key=lambda p: problem.solve(p).cost)


def _fit_plane(
    band: Cells,
    rings: Cells,
    microscope: Microscope,
    settings: Settings,
    start: Start,
    profile: tuple[Values, np.ndarray],
) -> Solution:
    """Fit all parameters in the plane, starting from those of the profile. Cells far from the model are left out."""
    v, expected = profile
    reference = float(band.u.max())
    table = np.zeros(int(rings.ring.max()) + 1)
    table[rings.ring] = expected
    defocus = defocus_of(v)
    contrast = band.contrast(defocus, microscope)
    free = [] if start.reach_A == 0 else ["z", "a", "b"]
    free += ["phi"] if settings.find_phase_shift else []
    bounds = _bounds(start) | _hill_bounds(start.defocus, microscope, band)
    problem = SpectrumProblem(band, contrast, microscope, reference, table[band.ring])
    solution = problem.fit(v, [*free, "convergence2", "sq", "sqa", "sqb"], bounds, 12)
    contrast = band.contrast(defocus_of(solution.values), microscope)
    problem = SpectrumProblem(band, contrast, microscope, reference, np.maximum(solution.model, 1e-12))
    shapes = ["c1a", "c1b", "h1", "c2a", "c2b", "h2"]
    everything = [*free, *_ENVELOPE, *_DRIFT, "sq", "sqa", "sqb", "c1", "g1", "c2", "g2", *shapes]
    begin = solution.values | dict.fromkeys(shapes, 0.0)
    solution = problem.fit(begin, everything, bounds, 25)
    # CTF² has the period π
    return replace(solution, values=solution.values | {"phi": solution.values["phi"] % np.pi})
