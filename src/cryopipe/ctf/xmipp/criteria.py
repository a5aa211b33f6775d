"""Quality of a fitted power spectrum: the formulas of xmipp's criteria.

Sources: xmipp ``ctf_sort_psds`` and ``protocol_ctf_micrographs``; Sorzano et al. 2007, doi:10.1016/j.jsb.2007.08.013.
Limits that were tuned to the normalisation of xmipp may be wrong here. Two values differ from those of xmipp on purpose.
The PCA variance is a mean squared deviation of logarithms per cell. The fitting score is the mean squared residual in
units of noise.
"""

from __future__ import annotations

import numpy as np

from cryopipe.ctf.defocus import Defocus, Microscope, phase
from cryopipe.ctf.xmipp.enhanced_spectrum import EnhancedPsd
from cryopipe.ctf.xmipp.envelope import azimuthal_defocus
from cryopipe.ctf.xmipp.fit import Solution
from cryopipe.ctf.xmipp.periodogram import Periodogram
from cryopipe.ctf.xmipp.polar_average import Cells

_AZIMUTHS_RAD = np.pi * np.arange(180) / 180.0
#: Range of digital frequencies in which xmipp compares local spectra.
_STABLE_BAND = (0.05, 0.4)
#: Bins of xmipp's histogram.
_HISTOGRAM_BINS = 400
#: xmipp's iceness: largest pixel size for which it is computed, the ring of ice and the one beside it, Å.
_ICE_PIXEL_A = 1.8
_ICE_A, _BESIDE_ICE_A = (3.6, 4.0), (4.0, 4.4)


def phase_resolution_A(
    defocus: Defocus, microscope: Microscope, chi: float, azimuth_rad: np.ndarray = _AZIMUTHS_RAD
) -> np.ndarray:
    """Return the resolution (Å) along each azimuth at which χ first reaches ``chi``, or NaN if it never does.

    The n-th zero of the CTF is at χ = n π (`first_zero_phase`). Its first minimum is π/2 beyond the first zero.

    Parameters
    ----------
    defocus : Defocus
        Defocus of the CTF.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    chi : float
        Phase, radians.
    azimuth_rad : ndarray
        Directions from x towards y, radians. By default one per degree over 180°.
    """
    wavelength, cs_A = microscope.wavelength_A, microscope.cs_mm * 1e7
    local = azimuthal_defocus(defocus, azimuth_rad)
    turns = (chi - defocus.phase_shift_rad - microscope.offset) / (np.pi * wavelength)
    root2 = local**2 - 2.0 * wavelength**2 * cs_A * turns
    k2 = 2.0 * turns / (local + np.sqrt(np.where(root2 >= 0, root2, np.nan)))
    return 1.0 / np.sqrt(np.where(k2 > 0, k2, np.nan))


def first_zero_phase(defocus: Defocus, microscope: Microscope) -> float:
    """Return χ at the first zero of the CTF, the first multiple of π beyond χ(0). Without a phase plate it is π."""
    return float(np.pi * (np.floor((defocus.phase_shift_rad + microscope.offset) / np.pi) + 1.0))


def first_zero(defocus: Defocus, microscope: Microscope) -> tuple[float, float]:
    """Return the mean resolution (Å) of the first zero and the ratio of its extremes over azimuths, 0 if there is none."""
    zeros_A = phase_resolution_A(defocus, microscope, first_zero_phase(defocus, microscope))
    if not np.isfinite(zeros_A).all():
        return 0.0, 0.0
    return float(zeros_A.mean()), float(zeros_A.max() / zeros_A.min())


def astigmatic_validity_A(defocus: Defocus, microscope: Microscope) -> float:
    """Return √(λ |U - V|), the resolution up to which a CTF without astigmatism is valid (xmipp's nonAstigmaticValidity)."""
    return float(np.sqrt(microscope.wavelength_A * abs(defocus.u_A - defocus.v_A)))


def ring_margins(enhanced: EnhancedPsd, defocus: Defocus, microscope: Microscope) -> tuple[float, float]:
    """Return xmipp's ctfMargin and firstMinFirstZeroRatio of an enhanced spectrum.

    The first is the mean over azimuths of (value at the first minimum of the CTF - value at its first zero), divided by
    the standard deviation along the zero. The second is the standard deviation along the minimum, divided by the same.
    They are 0 and 1000 if the two rings are beyond Nyquist.
    """
    rings = []
    zero_chi = first_zero_phase(defocus, microscope)
    for chi in (zero_chi, zero_chi + 0.5 * np.pi):
        u = 1.0 / phase_resolution_A(defocus, microscope, chi)
        if not np.all(u < 0.5 / enhanced.pixel_size_A):
            return 0.0, 1000.0
        rings.append(enhanced.at(u * np.cos(_AZIMUTHS_RAD), u * np.sin(_AZIMUTHS_RAD)))
    zero, minimum = rings
    sd = max(float(zero.std()), 1e-6)
    return float((minimum - zero).mean()) / sd, float(minimum.std()) / sd


def correlation_90(enhanced: EnhancedPsd) -> float:
    """Return the correlation of the enhanced spectrum with itself rotated by 90°."""
    odd, mask = enhanced.values[1:, 1:], enhanced.mask[1:, 1:]
    a, b = odd[mask], np.rot90(odd)[mask]
    return float(np.corrcoef(a, b)[0, 1])


def radial_integral(enhanced: EnhancedPsd) -> float:
    """Return the sum of the moduli of the radial average of the enhanced spectrum, divided by the largest of them."""
    n = enhanced.values.shape[0]
    axis = np.arange(n) - n // 2
    ring = np.rint(np.hypot(axis[:, None], axis[None, :])).astype(int).ravel()
    mean = np.abs(np.bincount(ring, weights=enhanced.values.ravel()) / np.maximum(np.bincount(ring), 1))[: n // 2]
    return float(mean.sum() / max(float(mean.max()), 1e-12))


def spectrum_stability(periodogram: Periodogram) -> tuple[float, float, float]:
    """Return how much the spectra of the windows differ: (psdVariance, psdPca1, psdPcaRunsTest).

    psdVariance is the mean of standard deviation / mean over the pixels between digital frequencies 0.05 and 0.4 (1 for
    pure noise). psdPca1 is the variance of the logarithmic local spectra along their first principal component, per cell.
    psdPcaRunsTest is the normal deviate of the number of runs of its sign in reading order. It is negative if neighbours
    are similar, as overlapping windows always are to some degree.
    """
    n = periodogram.box
    k = np.hypot(np.fft.fftfreq(n)[:, None], np.arange(n // 2 + 1)[None, :] / n)
    inside = (k > _STABLE_BAND[0]) & (k < _STABLE_BAND[1])
    quotient = periodogram.deviation[inside] / np.maximum(periodogram.power[inside], 1e-12)
    centred = periodogram.local - periodogram.local.mean(axis=0)
    gram = centred @ centred.T
    values, vectors = np.linalg.eigh(gram)
    count, cells = centred.shape
    return float(quotient.mean()), float(values[-1] / max(count - 1, 1) / cells), runs_deviate(vectors[:, -1] > 0)


def runs_deviate(signs: np.ndarray) -> float:
    """Return the normal deviate of the number of runs in a sequence of booleans (Wald & Wolfowitz); 0 if all are equal."""
    n, positive = len(signs), int(signs.sum())
    negative = n - positive
    if positive == 0 or negative == 0 or n < 3:
        return 0.0
    runs = 1 + int((signs[1:] != signs[:-1]).sum())
    expected = 1.0 + 2.0 * positive * negative / n
    variance = (expected - 1.0) * (expected - 2.0) / (n - 1.0)
    return float((runs - expected) / np.sqrt(max(variance, 1e-12)))


def iceness(periodogram: Periodogram) -> float:
    """Return mean power at 4.0-3.6 Å / mean power at 4.4-4.0 Å, or 0 if pixels are larger than 1.8 Å."""
    if periodogram.pixel_size_A > _ICE_PIXEL_A:
        return 0.0
    n = periodogram.box
    u = np.hypot(np.fft.fftfreq(n)[:, None], np.arange(n // 2 + 1)[None, :] / n) / periodogram.pixel_size_A
    means = [
        float(periodogram.power[(u >= 1.0 / coarse) & (u < 1.0 / fine)].mean())
        for fine, coarse in (_ICE_A, _BESIDE_ICE_A)
    ]
    return means[0] / max(means[1], 1e-12)


def histogram_normality(micrograph: np.ndarray) -> float:
    """Return the symmetrised Kullback-Leibler divergence of the grey values and a Gaussian with their mean and sd.

    There are 400 bins from the smallest to the largest value. 1 is added to each count and expected count (xmipp's
    normality).
    """
    counts, edges = np.histogram(micrograph, _HISTOGRAM_BINS)
    mean, sd = float(micrograph.mean(dtype=np.float64)), float(micrograph.std(dtype=np.float64))
    middle = 0.5 * (edges[1:] + edges[:-1])
    density = np.exp(-0.5 * ((middle - mean) / sd) ** 2)
    p = (counts + 1.0) / (counts.sum() + _HISTOGRAM_BINS)
    q = density / density.sum() * counts.sum() + 1.0
    q /= q.sum()
    return float(0.5 * ((p - q) * np.log(p / q)).sum())


def fit_correlation(
    cells: Cells, solution: Solution, microscope: Microscope, *, zeros: tuple[int, int] | None = None
) -> float:
    """Return the correlation of data and model, both minus the background and in units of the model.

    Cells are weighted by their number of samples. With less than eight cells between the zeros the result is 0.

    Parameters
    ----------
    cells : Cells
        Polar cells that were fitted ``[n]``.
    solution : Solution
        The fit. Its arrays belong to ``cells``.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    zeros : (int, int), optional
        Numbers of two zeros of the CTF, counted from 1. Only cells between them are used. (1, 3) is xmipp's corr13.
    """
    v = solution.values
    scale = np.maximum(solution.model, 1e-12)
    data, model = (cells.power - solution.background) / scale, solution.fringed / scale
    weight = cells.samples
    if zeros is not None:
        local = v["z"] + v["a"] * cells.cos2 + v["b"] * cells.sin2
        chi = phase(cells.u**2, local, microscope, v["phi"])
        before = first_zero_phase(Defocus(v["z"], v["a"], v["b"], v["phi"]), microscope) - np.pi
        inside = (chi >= before + zeros[0] * np.pi) & (chi <= before + zeros[1] * np.pi)
        if inside.sum() < 8:
            return 0.0
        data, model, weight = data[inside], model[inside], weight[inside]
    share = weight / weight.sum()
    data, model = data - (share * data).sum(), model - (share * model).sum()
    norm = float((share * data**2).sum() * (share * model**2).sum())
    return float((share * data * model).sum() / np.sqrt(norm)) if norm > 0 else 0.0
