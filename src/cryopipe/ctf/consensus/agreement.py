"""To which resolution CTFs of one micrograph agree, which of them form the largest agreeing set, and their tensor mean.

Two CTFs agree up to the frequency at which their phases differ by 90° (Marabini et al. 2015, J. Struct. Biol. 190:348,
doi:10.1016/j.jsb.2015.04.003; xmipp ``errorMaxFreqCTFs2D``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cryopipe.ctf.defocus import Defocus, Microscope
from cryopipe.errors import InputError

#: Number of azimuths over 180°, one every half degree. The extremes are among them, so this number decides only how finely the
#: area is averaged.
_AZIMUTHS = 360
#: Side of the grid of frequencies that xmipp's ``errorMaxFreqCTFs2D`` uses.
_LEGACY_GRID = 256


@dataclass(frozen=True)
class Agreement:
    """Resolutions in Å to which two CTFs agree.

    Attributes
    ----------
    crossing_A : float
        First frequency, over all azimuths, at which the phases differ by 90°. It is twice the pixel size if they never
        do, and infinite if they differ already at frequency zero.
    area_A : float
        Radius of a disc with the area of the frequencies at which they differ by less. Infinite if there are none.
    legacy_linear_A : float
        xmipp's value: that area, as a share of the Nyquist disc, times the Nyquist frequency. It depends on the pixel
        size.
    """

    crossing_A: float
    area_A: float
    legacy_linear_A: float


def agreement(first: tuple[Defocus, Microscope], second: tuple[Defocus, Microscope], pixel_size_A: float) -> Agreement:
    """Compare two CTFs (defocus and microscope of each) up to the Nyquist frequency of ``pixel_size_A``.

    ``crossing_A`` and ``area_A`` use the full phases, with phase shift, amplitude contrast and Cs. Along one azimuth the
    difference is a quadratic polynomial in k², so the crossings are computed exactly as its roots. ``legacy_linear_A``
    compares only the defoci, on a grid of 256 x 256 digital frequencies, as xmipp does.

    Raises
    ------
    InputError
        The two have different voltages, so they do not belong to one micrograph.
    """
    (a, scope_a), (b, scope_b) = first, second
    if scope_a.voltage_kV != scope_b.voltage_kV:
        raise InputError(
            f"two CTFs of a micrograph have {scope_a.voltage_kV:g} and {scope_b.voltage_kV:g} kV. Estimate both from "
            "the same table of micrographs."
        )
    wavelength, end = scope_a.wavelength_A, (0.5 / pixel_size_A) ** 2
    z, x, y = a.mean_A - b.mean_A, a.a_A - b.a_A, a.b_A - b.b_A
    # the azimuths start at an axis of the difference, so that its extremes are among them
    twice = np.arctan2(y, x) + 2.0 * np.pi * np.arange(_AZIMUTHS) / _AZIMUTHS
    linear = np.pi * wavelength * (z + np.hypot(x, y) * np.cos(twice - np.arctan2(y, x)))
    square = -0.5 * np.pi * wavelength**3 * (scope_a.cs_mm - scope_b.cs_mm) * 1e7
    constant = a.phase_shift_rad + scope_a.offset - b.phase_shift_rad - scope_b.offset
    bounds = _sign_changes(linear, square, constant, end)
    middle = 0.5 * (bounds[:, 1:] + bounds[:, :-1])
    apart = np.abs(square * middle**2 + linear[:, None] * middle + constant) >= 0.5 * np.pi
    width = np.diff(bounds, axis=1)
    apart &= width > 0
    crossings = np.where(apart, bounds[:, :-1], end).min()
    near = float(np.where(apart, 0.0, width).sum(axis=1).mean())
    return Agreement(
        crossing_A=_resolution_A(float(crossings)),
        area_A=_resolution_A(near),
        legacy_linear_A=_legacy_linear_A(first, second, pixel_size_A),
    )


def _resolution_A(k2: float) -> float:
    return float(k2**-0.5) if k2 > 0 else math.inf


def _sign_changes(linear: np.ndarray, square: float, constant: float, end: float) -> np.ndarray:
    """Return for each azimuth 0, the sorted roots in k² of |square q² + linear q + constant| = π/2 up to ``end``, ``end``."""
    columns = [np.zeros_like(linear), np.full_like(linear, end)]
    for side in (0.5 * np.pi, -0.5 * np.pi):
        rest = constant - side
        # numerically stable form of both roots; without a quadratic term the second is the only root
        with np.errstate(divide="ignore", invalid="ignore"):
            half = -0.5 * (linear + np.copysign(np.sqrt(linear**2 - 4.0 * square * rest), linear))
            columns += [half / square if square else np.full_like(linear, np.nan), rest / half]
    found = np.stack(columns, axis=1)
    inside = np.where(np.isfinite(found) & (found > 0), np.minimum(found, end), 0.0)
    return np.sort(inside, axis=1)


def _legacy_linear_A(
    first: tuple[Defocus, Microscope], second: tuple[Defocus, Microscope], pixel_size_A: float
) -> float:
    a, b = first[0], second[0]
    axis = np.fft.fftfreq(_LEGACY_GRID, pixel_size_A)
    kx, ky = axis[None, :], axis[:, None]
    k2 = kx**2 + ky**2
    # (z, a, b) are linear in the defocus, so Δ k² needs no angle
    local = (a.mean_A - b.mean_A) * k2 + (a.a_A - b.a_A) * (kx**2 - ky**2) + (a.b_A - b.b_A) * 2.0 * kx * ky
    near = int((np.abs(np.pi * first[1].wavelength_A * local) < 0.5 * np.pi).sum())
    share = min(1.0, near / (np.pi * _LEGACY_GRID**2 / 4.0))
    return float(2.0 * pixel_size_A / max(share, 1e-9))


def largest_agreeing(distances: Mapping[tuple[str, str], float], names: Iterable[str], limit: float) -> tuple[str, ...]:
    """Return the largest set of names, sorted, in which all pairs are within ``limit``.

    Of sets with the same size, the one whose worst pair agrees best is taken, then the first one in the alphabet. So the
    result does not depend on the order of ``names``.

    Parameters
    ----------
    distances : mapping
        ``{(name, name) in alphabetical order: resolution of agreement, Å}`` of all pairs.
    names : iterable of str
        At most about ten names, because all subsets are tried.
    limit : float
        Largest resolution, Å, at which a pair agrees.
    """
    known = sorted(names)
    for size in range(len(known), 0, -1):
        found = []
        for group in itertools.combinations(known, size):
            worst = max((distances[pair] for pair in itertools.combinations(group, 2)), default=0.0)
            if worst <= limit:
                found.append((worst, group))
        if found:
            return min(found)[1]
    return ()


def mean_defocus(defoci: Sequence[Defocus]) -> Defocus:
    """Return the mean of the defoci as tensors (z, a and b), and of the phase shifts as angles with a period of 180°.

    Sums are rounded once, so that the order of ``defoci`` changes no bit.
    """
    n = len(defoci)
    z, a, b = (math.fsum(getattr(d, name) for d in defoci) / n for name in ("mean_A", "a_A", "b_A"))
    cosine = math.fsum(math.cos(2.0 * d.phase_shift_rad) for d in defoci)
    sine = math.fsum(math.sin(2.0 * d.phase_shift_rad) for d in defoci)
    return Defocus(z, a, b, 0.5 * math.atan2(sine, cosine) % math.pi)


@dataclass(frozen=True)
class Spread:
    """Standard deviations (n - 1) of several defoci, Å: along the axes of their mean, and of the tensor's components."""

    u_A: float
    v_A: float
    mean_A: float
    a_A: float
    b_A: float


def spread(defoci: Sequence[Defocus]) -> Spread:
    """Return the scatter of two or more defoci about their tensor mean.

    U and V are taken along the axes of the mean (Δ = z ± (a cos 2α + b sin 2α)). The larger and smaller defocus of each
    estimate would also contain the noise of its angle.
    """
    mean = mean_defocus(defoci)
    length = math.hypot(mean.a_A, mean.b_A)
    cosine, sine = (mean.a_A / length, mean.b_A / length) if length > 0 else (1.0, 0.0)

    def sd(values: Iterable[float], centre: float) -> float:
        return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(defoci) - 1))

    along = [d.a_A * cosine + d.b_A * sine for d in defoci]
    return Spread(
        u_A=sd((d.mean_A + x for d, x in zip(defoci, along, strict=True)), mean.u_A),
        v_A=sd((d.mean_A - x for d, x in zip(defoci, along, strict=True)), mean.v_A),
        mean_A=sd((d.mean_A for d in defoci), mean.mean_A),
        a_A=sd((d.a_A for d in defoci), mean.a_A),
        b_A=sd((d.b_A for d in defoci), mean.b_A),
    )


def angle_difference_deg(first_deg: float, second_deg: float) -> float:
    """Return the angle between two axes, 0 to 90°."""
    difference = abs(first_deg - second_deg) % 180.0
    return min(difference, 180.0 - difference)
