"""A periodogram averaged over polar cells, and the share of the fringe contrast that remains after the averages.

With rings of one pixel and 64 directions over 180° nothing is lost that a fit could use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from cryopipe.ctf.defocus import Defocus, Microscope
from cryopipe.ctf.xmipp.periodogram import Periodogram

#: Number of directions over 180°. Within one of 2.8° the defocus varies by at most ± 0.025 (U - V).
_AZIMUTHS = 64
#: Pixels this close to an axis are left out, because edges, rows and columns of the camera make them bright.
_CROSS_PX = 2


@dataclass(frozen=True)
class Cells:
    """Polar cells of half a plane ``[n]``, ordered by radius.

    Attributes
    ----------
    u, cos2, sin2 : ndarray
        Frequency (1/Å, root of the mean square) and mean cos 2θ, sin 2θ of a cell's pixels.
    power : ndarray
        Mean power.
    samples : ndarray
        Number of independent periodogram values in a cell. The relative variance of its power is 1 / samples.
    ring : ndarray of int
        Radius in units of ``step``.
    step : float
        Width of a ring, 1/Å.
    lag_window : ndarray
        Lag window of the windows, at multiples of ``pixel_size_A``.
    pixel_size_A : float
        Pixel size of the windows.
    """

    u: np.ndarray
    cos2: np.ndarray
    sin2: np.ndarray
    power: np.ndarray
    samples: np.ndarray
    ring: np.ndarray
    step: float
    lag_window: np.ndarray
    pixel_size_A: float

    def within(self, low: float, high: float) -> Cells:
        """Return the cells between two frequencies (1/Å)."""
        return self.select((self.u >= low) & (self.u <= high))

    def select(self, keep: np.ndarray) -> Cells:
        """Return the cells that ``keep`` marks."""
        names = ("u", "cos2", "sin2", "power", "samples", "ring")
        return replace(self, **{name: getattr(self, name)[keep] for name in names})

    def contrast(self, defocus: Defocus, microscope: Microscope) -> np.ndarray:
        """Return the share of the fringe contrast that remains ``[n]``.

        A fringe cos 2χ(u) is the transform of lags around dχ/(π du). Windows weaken it by their autocorrelation at that
        lag, and a ring of finite width weakens it by a sinc.
        """
        wavelength, cs_A = microscope.wavelength_A, microscope.cs_mm * 1e7
        local = defocus.mean_A + defocus.a_A * self.cos2 + defocus.b_A * self.sin2
        lag_A = np.abs(2.0 * wavelength * local * self.u - 2.0 * cs_A * wavelength**3 * self.u**3)
        lags = np.arange(len(self.lag_window))
        cosine = np.sqrt(np.clip(0.5 * (1.0 + self.cos2), 0.0, 1.0))
        sine = np.sqrt(np.clip(0.5 * (1.0 - self.cos2), 0.0, 1.0))
        along = [
            np.interp(lag_A * part / self.pixel_size_A, lags, self.lag_window, right=0.0) for part in (cosine, sine)
        ]
        return along[0] * along[1] * np.sinc(lag_A * self.step)


def polar_cells(periodogram: Periodogram, *, azimuths: int = _AZIMUTHS) -> Cells:
    """Average the power over cells of one pixel in radius and 180° / ``azimuths`` in direction, up to Nyquist."""
    n = periodogram.box
    y, x = np.mgrid[0:n, 0 : n // 2]
    y = np.where(y >= n // 2, y - n, y)
    r2 = x**2 + y**2
    use = (x > _CROSS_PX) & (np.abs(y) > _CROSS_PX) & (r2 < (n // 2) ** 2)
    power = periodogram.power[:, : n // 2][use]
    x, y, r2 = x[use], y[use], r2[use]
    ring = np.rint(np.sqrt(r2)).astype(int)
    sector = np.minimum((np.arctan2(y, x) % np.pi * (azimuths / np.pi)).astype(int), azimuths - 1)
    cell = ring * azimuths + sector
    count = np.bincount(cell)
    seen = np.flatnonzero(count)
    fields = (r2, (x**2 - y**2) / r2, 2.0 * x * y / r2, power)
    mean_r2, cos2, sin2, mean = (np.bincount(cell, weights=f)[seen] / count[seen] for f in fields)
    unit = 1.0 / (n * periodogram.pixel_size_A)
    return Cells(
        np.sqrt(mean_r2) * unit,
        cos2,
        sin2,
        mean,
        count[seen] * periodogram.independent,
        seen // azimuths,
        unit,
        periodogram.lag_window,
        periodogram.pixel_size_A,
    )


def ring_cells(cells: Cells) -> Cells:
    """Average over azimuths: one cell per ring, cos 2θ = sin 2θ = 0."""
    total = np.bincount(cells.ring, weights=cells.samples)
    seen = np.flatnonzero(total)
    u, power = (np.bincount(cells.ring, weights=f * cells.samples)[seen] / total[seen] for f in (cells.u, cells.power))
    zero = np.zeros(len(seen))
    return replace(cells, u=u, cos2=zero, sin2=zero, power=power, samples=total[seen], ring=seen)


def ring_contrast(
    cells: Cells, rings: Cells, defocus: Defocus, microscope: Microscope, *, astigmatic: bool = True
) -> np.ndarray:
    """Return the contrast ``[rings]`` of a fringe after averaging over each ring.

    This is the contrast of its cells times J0(π λ (U - V) u²), the mean over azimuths of cos 2χ for an astigmatism U - V.

    Parameters
    ----------
    cells : Cells
        Polar cells.
    rings : Cells
        Rings from :func:`ring_cells` of these cells.
    defocus : Defocus
        Defocus of the fringes.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    astigmatic : bool
        Whether the loss by astigmatism is included.
    """
    total = np.bincount(cells.ring, weights=cells.samples)[rings.ring]
    contrast = np.bincount(cells.ring, weights=cells.samples * cells.contrast(defocus, microscope))[rings.ring] / total
    if astigmatic:
        contrast = contrast * special.j0(np.pi * microscope.wavelength_A * (defocus.u_A - defocus.v_A) * rings.u**2)
    return contrast
