"""Resolution of the Thon rings of a fit: the significance of fringes around each ring, and where it ends."""

from __future__ import annotations

import numpy as np

from cryopipe.ctf.defocus import Defocus, Microscope, phase
from cryopipe.ctf.xmipp.polar_average import Cells

#: Rings count as found if their amplitude is at least 7 standard errors somewhere (a defocus fitted to noise reaches 5.5). They
#: are followed as long as it is at least 3.
_SEEN_T, _LEAST_T = 7.0, 3.0
#: Least number of rings to either side in a window. A choice: 17 rings leave enough residuals to judge three coefficients.
_LEAST_HALF_WINDOW = 8


def ring_significance(cells: Cells, defocus: Defocus, microscope: Microscope) -> tuple[np.ndarray, np.ndarray]:
    """Return the frequencies of the rings (1/Å) and the fringe amplitude around each in standard errors ``[rings]``.

    In a window of four fringes (at least 17 rings) the power relative to its running mean is regressed on a constant, a
    slope and -cos 2χ of the fitted defocus. The residuals give the standard error of the last coefficient.
    """
    chi = phase(
        cells.u**2,
        defocus.mean_A + defocus.a_A * cells.cos2 + defocus.b_A * cells.sin2,
        microscope,
        defocus.phase_shift_rad,
    )
    first, count = int(cells.ring.min()), int(np.ptp(cells.ring)) + 1
    ring = cells.ring - first
    weight = cells.samples
    per_ring = np.bincount(ring, weights=weight, minlength=count)
    u = np.bincount(ring, weights=weight * cells.u, minlength=count) / np.maximum(per_ring, 1e-12)
    slope = 2.0 * microscope.wavelength_A * defocus.mean_A * np.maximum(u, 1e-6)
    fringe = 1.0 / (slope * cells.step)  # rings
    # a mean over one fringe removes the fringes
    trend = _running_mean(weight, cells.power, ring, _half_window(0.5 * fringe))
    y = cells.power / trend[ring] - 1.0
    f = -cells.contrast(defocus, microscope) * np.cos(2.0 * chi)
    x = ring.astype(np.float64)
    fields = {"1": np.ones_like(x), "x": x, "f": f, "y": y}
    moments = {
        a + b: np.concatenate(
            [[0.0], np.cumsum(np.bincount(ring, weights=weight * fields[a] * fields[b], minlength=count))]
        )
        for a, b in ("11", "1x", "1f", "xx", "xf", "ff", "1y", "xy", "fy", "yy")
    }
    cells_before = np.concatenate([[0], np.cumsum(np.bincount(ring, minlength=count))])
    half = _half_window(2.0 * fringe)
    t = np.zeros(count)
    for r in range(count):
        low, high = max(r - half[r], 0), min(r + half[r] + 1, count)
        m = {name: float(c[high] - c[low]) for name, c in moments.items()}
        t[r] = _t_of_fringe(m, int(cells_before[high] - cells_before[low]))
    return u, t


def _half_window(rings: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(rings), _LEAST_HALF_WINDOW, max(len(rings) // 6, _LEAST_HALF_WINDOW)).astype(int)


def _running_mean(weight: np.ndarray, values: np.ndarray, ring: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Return the running mean over ``half`` rings to either side."""
    n = len(half)
    sums, counts = (
        np.concatenate([[0.0], np.cumsum(np.bincount(ring, weights=w, minlength=n))]) for w in (weight * values, weight)
    )
    low, high = np.maximum(np.arange(n) - half, 0), np.minimum(np.arange(n) + half + 1, n)
    return (sums[high] - sums[low]) / np.maximum(counts[high] - counts[low], 1e-12)


def _t_of_fringe(m: dict[str, float], n: int) -> float:
    normal = np.array(
        [[m["11"], m["1x"], m["1f"]], [m["1x"], m["xx"], m["xf"]], [m["1f"], m["xf"], m["ff"]]], dtype=np.float64
    )
    right = np.array([m["1y"], m["xy"], m["fy"]])
    if n < 8 or np.linalg.cond(normal) > 1e12:
        return 0.0
    inverse = np.linalg.inv(normal)
    height = inverse @ right
    # weights are numbers of samples, so residuals have the variance s / weight
    s = max(m["yy"] - float(right @ height), 1e-12) / (n - 3)
    return float(height[2] / np.sqrt(max(s * inverse[2, 2], 1e-30)))


def fit_resolution_A(u: np.ndarray, t: np.ndarray, coarse_A: float, first_zero_A: float) -> float:
    """Return the resolution (Å) up to which rings are found, where ``t`` falls below 3 beyond its peak.

    The peak is searched at resolutions finer than ``coarse_A`` and than the first zero, since before the first zero a
    steep background looks like a fringe. If the peak is below 7, there are no rings and ``coarse_A`` is returned.

    Parameters
    ----------
    u : ndarray ``[rings]``
        Frequencies, 1/Å, ascending.
    t : ndarray ``[rings]``
        Fringe amplitude around each ring in standard errors (`ring_significance`).
    coarse_A : float
        Coarsest resolution of the band, Å.
    first_zero_A : float
        Resolution of the first zero of the CTF, Å.
    """
    begin = int(np.searchsorted(u, 1.0 / min(coarse_A, first_zero_A)))
    if begin >= len(u):
        return coarse_A
    peak = begin + int(np.argmax(t[begin:]))
    if t[peak] < _SEEN_T:
        return coarse_A
    after = np.flatnonzero(t[peak:] < _LEAST_T)
    return float(1.0 / u[peak + after[0] if len(after) else len(u) - 1])
