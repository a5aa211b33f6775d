"""Initial defocus: Thon rings are equidistant over k², so that one Fourier transform finds them.

The method is that of Vargas et al. 2013, J. Struct. Biol. 181:136, doi:10.1016/j.jsb.2012.12.006 (xmipp's fast defocus),
with two additions. The Cs term is removed before the transform. Sectors are transformed separately and combined for each
astigmatism, so that astigmatic rings do not cancel.
"""

from __future__ import annotations

import numpy as np
import scipy.fft

from cryopipe.ctf.defocus import Defocus, Microscope
from cryopipe.ctf.xmipp.polar_average import Cells

#: Number of samples over k². A defocus of 50000 Å has 39 fringes to 5 Å at 300 kV, which gives 13 samples per fringe.
_POINTS = 512
#: Number of sectors over 180°. Within one of 15° the defocus varies by at most ± 0.13 (U - V). Narrower ones are noisier.
_SECTORS = 12
#: Values beyond this many standard deviations are clipped, as in xmipp.
_CLIP_SD = 3.0


def fast_defocus(u: np.ndarray, power: np.ndarray, microscope: Microscope, defoci_A: np.ndarray) -> float:
    """Return the mean defocus (Å) of a radial profile, found by a Fourier transform over k².

    Parameters
    ----------
    u, power : ndarray ``[n]``
        Frequencies (1/Å, ascending) of the band to be used, and power.
    microscope : Microscope
        Voltage, Cs, amplitude contrast. A phase shift is not included.
    defoci_A : ndarray
        Ascending defoci, evenly spaced. The result is interpolated between them.
    """
    score = -_spectrum(u, power, microscope, defoci_A).real
    best = int(np.argmax(score))
    if not 0 < best < len(score) - 1:
        return float(defoci_A[best])
    left, middle, right = score[best - 1 : best + 2]
    offset = 0.5 * (left - right) / (left - 2.0 * middle + right)
    return float(defoci_A[best] + offset * (defoci_A[1] - defoci_A[0]))


def find_defocus(
    cells: Cells,
    microscope: Microscope,
    *,
    defoci_A: np.ndarray,
    max_astigmatism_A: float,
    find_phase_shift: bool,
    candidates: int,
) -> list[Defocus]:
    """Return the best defoci with astigmatism (and phase shift), best first, as exact as the steps of the search.

    Parameters
    ----------
    cells : Cells
        Polar cells of the band to be used.
    microscope : Microscope
        Voltage, Cs, amplitude contrast.
    defoci_A : ndarray
        Ascending mean defoci, evenly spaced.
    max_astigmatism_A : float
        Largest U - V tried.
    find_phase_shift : bool
        Allow any phase shift. Otherwise the phase of the rings must be that of the defocus.
    candidates : int
        Number of defoci to return. Their means differ by half a ring or more at the fine end.
    """
    step = float(defoci_A[1] - defoci_A[0])
    reach = int(np.ceil(0.5 * max_astigmatism_A / step))
    wide = defoci_A[0] + step * np.arange(-reach, len(defoci_A) + reach)
    theta = (np.arctan2(cells.sin2, cells.cos2) % (2 * np.pi)) / (2 * np.pi)
    sector = np.minimum((theta * _SECTORS).astype(int), _SECTORS - 1)
    spectra = np.stack([_sector_spectrum(cells, sector == s, microscope, wide) for s in range(_SECTORS)])
    twice = 2.0 * np.pi * (np.arange(_SECTORS) + 0.5) / _SECTORS
    n = len(defoci_A)
    best = np.full(n, -np.inf)
    found = [Defocus(float(z)) for z in defoci_A]
    for a, b in _disc(0.5 * max_astigmatism_A, 1.5 * step):
        jump = np.rint((a * np.cos(twice) + b * np.sin(twice)) / step).astype(int) + reach
        total = np.zeros(n, dtype=np.complex128)
        for s in range(_SECTORS):
            total += spectra[s, jump[s] : jump[s] + n]
        score = np.abs(total) if find_phase_shift else -total.real
        for i in np.flatnonzero(score > best):
            # total ~ -exp(2i · phase shift)
            shift = 0.5 * float(np.angle(-total[i])) % np.pi if find_phase_shift else 0.0
            best[i], found[i] = score[i], Defocus(float(defoci_A[i]), a, b, shift)
    apart = 0.5 / (microscope.wavelength_A * float(cells.u.max()) ** 2)
    chosen: list[Defocus] = []
    for i in np.argsort(-best, kind="stable"):
        if all(abs(found[i].mean_A - other.mean_A) >= apart for other in chosen):
            chosen.append(found[i])
        if len(chosen) == candidates:
            break
    return chosen


def _sector_spectrum(cells: Cells, inside: np.ndarray, microscope: Microscope, defoci_A: np.ndarray) -> np.ndarray:
    weight = np.bincount(cells.ring[inside], weights=cells.samples[inside])
    seen = np.flatnonzero(weight)
    u, power = (
        np.bincount(cells.ring[inside], weights=(f * cells.samples)[inside])[seen] / weight[seen]
        for f in (cells.u, cells.power)
    )
    return _spectrum(u, power, microscope, defoci_A)


def _spectrum(u: np.ndarray, power: np.ndarray, microscope: Microscope, defoci_A: np.ndarray) -> np.ndarray:
    """Return Σ p(q) exp(-i 2χ(q)) over q = k² for each defocus, where p is the power relative to its smooth trend.

    A fringe -cos 2χ of the right defocus gives a negative real number.
    """
    wavelength, cs_A = microscope.wavelength_A, microscope.cs_mm * 1e7
    trend = np.stack([np.ones_like(u), np.sqrt(u), u, u**2], axis=1)
    logarithm = np.log(np.maximum(power, 1e-12))
    fitted, *_ = np.linalg.lstsq(trend, logarithm, rcond=None)
    relative = np.exp(np.clip(logarithm - trend @ fitted, -3.0, 3.0)) - 1.0
    relative -= relative.mean()
    sd = float(relative.std())
    relative = np.clip(relative, -_CLIP_SD * sd, _CLIP_SD * sd)
    q = np.linspace(float(u[0]) ** 2, float(u[-1]) ** 2, _POINTS)
    even = np.interp(q, u**2, relative)
    # soft ends, because a step at the end of the band would spread over all defoci
    edge = np.clip(np.minimum(np.arange(_POINTS) + 1, np.arange(_POINTS, 0, -1)) / (0.1 * _POINTS), 0.0, 1.0)
    even *= 0.5 - 0.5 * np.cos(np.pi * edge)
    chirp = np.exp(1j * (np.pi * wavelength**3 * cs_A * q**2 - 2.0 * microscope.offset))
    size = scipy.fft.next_fast_len(16 * _POINTS)
    dq = float(q[1] - q[0])
    # frequencies of the transform are λ Δ: Σ f(q) exp(-2πi λ Δ q)
    table = scipy.fft.fft(even * chirp, size)
    table = table * np.exp(-2j * np.pi * np.arange(size) / size * float(q[0]) / dq)
    position = wavelength * defoci_A * dq * size
    return _interpolated(table, position)


def _interpolated(table: np.ndarray, position: np.ndarray) -> np.ndarray:
    low = np.floor(position).astype(int)
    share = position - low
    n = len(table)
    return (1.0 - share) * table[low % n] + share * table[(low + 1) % n]


def _disc(radius_A: float, step_A: float) -> list[tuple[float, float]]:
    n = int(radius_A / step_A)
    b, a = np.mgrid[-n : n + 1, -n : n + 1] * step_A
    points = np.stack([a.ravel(), b.ravel()], axis=1)
    size = np.hypot(points[:, 0], points[:, 1])
    order = np.argsort(size, kind="stable")
    return [(float(p[0]), float(p[1])) for p in points[order][size[order] <= radius_A + 1e-9]]
