"""How far the Thon rings of a fit reach: the significance of fringes ring by ring, and the resolution where it ends."""

from __future__ import annotations

import numpy as np

from cryopipe.ctf.defocus import Defocus, Microscope, phase
from cryopipe.ctf.xmipp.polar_average import Cells

#: Rings are seen where their amplitude is at least 7 standard errors somewhere (a defocus tuned to noise reaches 5.5), and
#: are followed as long as it is at least 3.
_SEEN_T, _LEAST_T = 7.0, 3.0
#: Rings to either side in a window, at least. A choice: 17 rings leave residuals enough to judge three coefficients by.
_LEAST_HALF_WINDOW = 8


def ring_significance(cells: Cells, defocus: Defocus, microscope: Microscope) -> tuple[np.ndarray, np.ndarray]:
    """Return the rings' frequencies (1/Å) and by how many standard errors fringes stand out around each ``[rings]``.

    In a window of four fringes (17 rings at least) the power relative to its running mean is regressed on a constant, a
    slope and -cos 2χ of the fitted defocus; the standard error of the last comes from the residuals.
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
    # one fringe's mean has no fringes
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
    """Return the mean over ``half`` rings to either side of each."""
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
    # weights are samples: residuals have the variance s / weight
    s = max(m["yy"] - float(right @ height), 1e-12) / (n - 3)
    return float(height[2] / np.sqrt(max(s * inverse[2, 2], 1e-30)))


def fit_resolution_A(u: np.ndarray, t: np.ndarray, coarse_A: float, first_zero_A: float) -> float:
    """Return the resolution (Å) to which rings are seen: beyond its peak, ``t`` falls below 3 there.

    The peak is sought at resolutions finer than ``coarse_A`` and than the first zero: before the first zero a steep
    background looks like a fringe. Where the peak is below 7, no rings are seen and ``coarse_A`` is returned.

    Parameters
    ----------
    u : ndarray ``[rings]``
        Frequencies, 1/Å, ascending.
    t : ndarray ``[rings]``
        By how many standard errors fringes stand out around each (`ring_significance`).
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
