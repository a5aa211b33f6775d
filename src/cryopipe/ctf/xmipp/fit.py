"""The whole power spectrum by separable least squares: PSD(u) = B²(u) + [K E(u) CTF(u)]².

Base line, heights of the background and K² enter linearly. For each trial of the other parameters (defocus, envelope, shapes
of the background) they are solved for, with the constraint that some must not be negative (Golub & Pereyra 1973, variable
projection; Lawson & Hanson 1974, NNLS). What remains is a bounded least-squares problem of some twenty parameters. Cells are
weighted by their relative noise, since the standard deviation of a periodogram is proportional to its expectation.

The model is xmipp's (Sorzano et al. 2007, doi:10.1016/j.jsb.2007.08.013). The minimiser is not: xmipp uses that of Powell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize

from cryopipe.ctf.defocus import Microscope, phase
from cryopipe.ctf.sector_errors import influences, sector_of, sector_sums
from cryopipe.ctf.xmipp.background import Background
from cryopipe.ctf.xmipp.polar_average import Cells
from cryopipe.ctf.xmipp.values import PRIORS, SPECS, Values, hill_of, squared_envelope

#: Terms of the polynomial: u, u² and u³.
_FREE_COLUMNS = 3
#: Relative step of the numerical derivatives: above the square root of the rounding error (1e-8), below the curvature scale.
_STEP = 1e-5
#: Ridges: the first only guards against rounding, the second makes polynomial terms that cancel each other costly.
_ROUNDING, _RIDGE = 1e-9, 1e-6


@dataclass(frozen=True)
class Solution:
    """Values of all parameters and heights of all terms, with the weighted residuals.

    ``heights`` are K², base, sqrt, first Gaussian, second Gaussian (which is subtracted), then the polynomial in
    u / ``reference``. ``slopes`` are the derivatives ``[n + priors, p]`` of the residuals and of the pulls of the priors by the
    fitted parameters, z, a and b first. Parameters at a bound are left out. If z, a or b was not fitted or is at a bound,
    ``slopes`` is None.
    """

    values: Values
    heights: np.ndarray
    reference: float
    fringed: np.ndarray
    background: np.ndarray
    model: np.ndarray
    residuals: np.ndarray
    slopes: np.ndarray | None = None

    @property
    def cost(self) -> float:
        """Mean squared weighted residual. It is 1 if only the noise of the periodogram remains."""
        return float(np.mean(self.residuals**2))


class SpectrumProblem:
    """Least squares of the model on cells.

    Parameters
    ----------
    cells : Cells
        Rings or polar cells in the band.
    contrast : ndarray ``[n]``
        Share of the fringe contrast that remains in each cell.
    microscope : Microscope
        Voltage, Cs, amplitude contrast.
    reference : float
        Frequency (1/Å) by which the empirical factor and the polynomial are scaled.
    expected : ndarray ``[n]``, optional
        Expected power, for the weights. By default a running mean of the power.
    """

    def __init__(
        self,
        cells: Cells,
        contrast: np.ndarray,
        microscope: Microscope,
        reference: float,
        expected: np.ndarray | None = None,
    ) -> None:
        self.cells = cells
        self.contrast = contrast
        self.microscope = microscope
        self.reference = reference
        expected = _smooth_power(cells) if expected is None else expected
        self.weights = np.sqrt(cells.samples) / np.maximum(expected, 1e-12)
        self.u2, self.w, self.root = cells.u**2, cells.u / reference, np.sqrt(cells.u)
        self.target = cells.power * self.weights
        self.polynomial = np.stack([self.w, self.w**2, self.w**3], axis=1) * self.weights[:, None]

    def local_defocus(self, v: Values) -> np.ndarray:
        """Return the defocus of each cell, Å."""
        return v["z"] + v["a"] * self.cells.cos2 + v["b"] * self.cells.sin2

    def envelope2(self, v: Values) -> np.ndarray:
        """Return E² of each cell."""
        return squared_envelope(self.cells.u, self.local_defocus(v), v, self.microscope, self.reference)

    def fringe(self, v: Values) -> np.ndarray:
        """Return CTF² of each cell, weakened by the averages over windows and cells."""
        chi = phase(self.u2, self.local_defocus(v), self.microscope, v["phi"])
        return 0.5 * (1.0 - self.contrast * np.cos(2.0 * chi))

    def columns(self, v: Values) -> tuple[np.ndarray, list[int]]:
        """Return the terms with heights >= 0 ``[n, m]``, weighted, and their places in ``Solution.heights``."""
        parts = [self.envelope2(v) * self.fringe(v), np.ones_like(self.w)]
        q = v["sq"] + v["sqa"] * self.cells.cos2 + v["sqb"] * self.cells.sin2
        # scaled to 1 at the coarse end, so that heights can be compared
        parts.append(np.exp(v["sq"] * self.root[0] - q * self.root))
        places = [0, 1, 2]
        for i, sign in ((1, 1.0), (2, -1.0)):
            if f"c{i}" in v:
                parts.append(sign * _hill(self.cells, v, i))
                places.append(2 + i)
        return np.stack(parts, axis=1) * self.weights[:, None], places

    def solve(self, v: Values) -> Solution:
        """Return the best heights for given parameters."""
        columns, places = self.columns(v)
        inner, free = separable_heights(columns, self.polynomial, self.target)
        heights = np.zeros(5 + _FREE_COLUMNS)
        heights[places], heights[5:] = inner, free
        signal = columns[:, 0] * inner[0]
        model = columns @ inner + self.polynomial @ free
        background = (model - signal) / self.weights
        heights[2] *= np.exp(v["sq"] * self.root[0])
        return Solution(
            dict(v),
            heights,
            self.reference,
            signal / self.weights,
            background,
            model / self.weights,
            model - self.target,
        )

    def fit(self, start: Values, names: list[str], bounds: dict[str, tuple[float, float]], steps: int) -> Solution:
        """Minimise the weighted squared residuals over the parameters ``names``.

        Parameters
        ----------
        start : dict
            Values of all parameters. Those outside ``names`` are kept.
        names : list of str
            Free parameters.
        bounds : dict
            ``{name: (lowest, highest)}``. The others have the bounds of `values`.
        steps : int
            Largest number of evaluations of the residuals, without those for derivatives.
        """
        if not names:
            return self.solve(start)
        scale = np.array([SPECS[n][0] for n in names])
        low, high = (np.array([bounds.get(n, SPECS[n][1:])[i] for n in names]) / scale for i in (0, 1))
        first = np.clip(np.array([start[n] for n in names]) / scale, low, high)
        priors = [(i, *PRIORS[n]) for i, n in enumerate(names) if n in PRIORS]

        def unpack(x: np.ndarray) -> Values:
            return start | {n: float(f) for n, f in zip(names, x * scale, strict=True)}

        # a deviation from the prior by one tolerance counts as much as one cell that does not fit at all
        spread = max(1.0, self.solve(unpack(first)).cost) ** 0.5

        def residuals(x: np.ndarray) -> np.ndarray:
            pulls = [spread * (x[i] * scale[i] - value) / tolerance for i, value, tolerance in priors]
            return np.concatenate([self.solve(unpack(x)).residuals, pulls])

        begin = np.clip(first, low + 1e-6 * (high - low), high - 1e-6 * (high - low))
        found = optimize.least_squares(
            residuals, begin, bounds=(low, high), diff_step=_STEP, max_nfev=steps, xtol=1e-5, ftol=1e-6, gtol=1e-8
        )
        inside = found.active_mask == 0
        fitted = names[:3] == ["z", "a", "b"] and bool(inside[:3].all())
        return replace(self.solve(unpack(found.x)), slopes=found.jac[:, inside] / scale[inside] if fitted else None)


def sector_influences(solution: Solution, cells: Cells) -> np.ndarray | None:
    """Return how far each sector moves z, a and b (`cryopipe.ctf.sector_errors.influences`), None if they were not fitted."""
    if solution.slopes is None:
        return None
    pulls = -solution.slopes[: len(cells.u)] * solution.residuals[:, None]
    return influences(sector_sums(pulls, sector_of(cells.cos2, cells.sin2)), solution.slopes.T @ solution.slopes)


def background_of(solution: Solution) -> Background:
    """Return the background of a solution."""
    v, h, r = solution.values, solution.heights, solution.reference
    return Background(
        base=float(h[1]),
        root=float(h[2]),
        slope=v["sq"],
        slope_a=v["sqa"],
        slope_b=v["sqb"],
        rise=float(h[3]),
        first=hill_of(v, 1) if "c1" in v else None,
        fall=float(h[4]),
        second=hill_of(v, 2) if "c2" in v else None,
        polynomial=(float(h[5] / r), float(h[6] / r**2), float(h[7] / r**3)),
    )


def separable_heights(columns: np.ndarray, free: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve min |columns·x + free·y - target| with x >= 0; columns ``[n, m]``, free ``[n, f]``, target ``[n]``.

    The normal equations are scaled and y is eliminated. Then NNLS on the Cholesky factor of the rest gives x.
    """
    everything = np.concatenate([columns, free, target[:, None]], axis=1)
    gram = everything.T @ everything
    m, f = columns.shape[1], free.shape[1]
    scale = 1.0 / np.sqrt(np.maximum(np.diag(gram)[: m + f], 1e-300))
    ridge = np.diag(np.repeat([_ROUNDING, _RIDGE], [m, f]))
    g = gram[: m + f, : m + f] * scale[:, None] * scale[None, :] + ridge
    c = gram[: m + f, -1] * scale
    eliminated = np.linalg.solve(g[m:, m:], np.concatenate([g[m:, :m], c[m:, None]], axis=1))
    reduced = g[:m, :m] - g[:m, m:] @ eliminated[:, :m]
    lower = np.linalg.cholesky(0.5 * (reduced + reduced.T) + 1e-10 * np.eye(m))
    x, _ = optimize.nnls(lower.T, np.linalg.solve(lower, c[:m] - g[:m, m:] @ eliminated[:, m]))
    y = eliminated[:, m] - eliminated[:, :m] @ x
    return x * scale[:m], y * scale[m:]


def _hill(cells: Cells, v: Values, i: int) -> np.ndarray:
    return hill_of(v, i).at(cells.u, cells.cos2, cells.sin2)


def _smooth_power(cells: Cells) -> np.ndarray:
    """Return the mean power of seven neighbouring rings at each cell."""
    sums = np.bincount(cells.ring, weights=cells.power * cells.samples)
    counts = np.bincount(cells.ring, weights=cells.samples)
    kernel = np.ones(7)
    smooth = np.convolve(sums, kernel, "same") / np.maximum(np.convolve(counts, kernel, "same"), 1e-12)
    return smooth[cells.ring]
