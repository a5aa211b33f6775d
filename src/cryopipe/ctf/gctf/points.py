"""Pixels or polar cells of a logarithmic spectrum, and their correlation with |CTF|."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryopipe.ctf.defocus import Defocus, Microscope, phase
from cryopipe.ctf.sector_errors import fit_influences, sector_of

#: Number of sectors over 180°. Within one of 5° the defocus varies by at most ± 0.045 (U - V).
_AZIMUTHS = 36
#: Pixels this close to the axes are left out. A choice: a Hann taper spreads the bright axes over ± 1 pixel.
_AXIS_PX = 3
#: Equivalent noise bandwidth of a Hann window, 1.5 pixels, squared.
_TAPER_PIXELS = 2.25


@dataclass(frozen=True)
class Points:
    """Pixels or polar cells of a spectrum ``[n]``: k² (1/Å²), cos 2θ, sin 2θ, value, and weight (pixels)."""

    k2: np.ndarray
    cos2: np.ndarray
    sin2: np.ndarray
    values: np.ndarray
    weights: np.ndarray

    def within(self, coarse_A: float, fine_A: float) -> Points:
        """Return the points between two resolutions."""
        inside = (self.k2 >= 1.0 / coarse_A**2) & (self.k2 <= 1.0 / fine_A**2)
        return Points(*(a[inside] for a in (self.k2, self.cos2, self.sin2, self.values, self.weights)))

    def independent(self, b_factor_A2: float) -> float:
        """Return the number of independent values among the weighted pixels. The taper of the windows correlates pixels."""
        weights = self.weights * np.exp(-0.25 * b_factor_A2 * self.k2)
        return float(weights.sum() ** 2 / (weights**2).sum()) / _TAPER_PIXELS

    def correlation(self, defocus: Defocus, microscope: Microscope, b_factor_A2: float) -> float:
        """Return the weighted Pearson correlation of values and |CTF| times its envelope, both times the envelope."""
        local = defocus.mean_A + defocus.a_A * self.cos2 + defocus.b_A * self.sin2
        model = np.abs(np.sin(phase(self.k2, local, microscope, defocus.phase_shift_rad)))
        weights = self.weights * np.exp(-0.25 * b_factor_A2 * self.k2)
        weights = weights / weights.sum()
        model = model - np.einsum("i,i->", weights, model)
        values = self.values - np.einsum("i,i->", weights, self.values)
        norm = np.einsum("i,i,i->", weights, model, model) * np.einsum("i,i,i->", weights, values, values)
        return float(np.einsum("i,i,i->", weights, model, values) / np.sqrt(max(norm, 1e-30)))

    def influences(
        self, defocus: Defocus, microscope: Microscope, b_factor_A2: float, *, free: int
    ) -> np.ndarray | None:
        """Return how far each sector moves a fit of ``free`` parameters (`cryopipe.ctf.sector_errors.influences`).

        Parameters
        ----------
        defocus : Defocus
            The fit.
        microscope : Microscope
            Voltage, Cs, amplitude contrast.
        b_factor_A2 : float
            Weight of high frequencies in the fit, Å².
        free : int
            3 (mean defocus and astigmatism) or 4 (phase shift, too).
        """
        weights = self.weights * np.exp(-0.25 * b_factor_A2 * self.k2)
        weights = weights / weights.sum()
        values = self.values - np.einsum("i,i->", weights, self.values)

        def pulls(at: Defocus) -> np.ndarray:
            local = at.mean_A + at.a_A * self.cos2 + at.b_A * self.sin2
            chi = phase(self.k2, local, microscope, at.phase_shift_rad)
            model = np.abs(np.sin(chi))
            model -= np.einsum("i,i->", weights, model)
            share = np.einsum("i,i,i->", weights, model, values) / np.einsum("i,i,i->", weights, model, model)
            slope = weights * (values - share * model) * share * np.where(np.sin(chi) < 0, -1.0, 1.0) * np.cos(chi)
            by_defocus = slope * self.k2 * (np.pi * microscope.wavelength_A)
            return np.stack([by_defocus, by_defocus * self.cos2, by_defocus * self.sin2, slope], axis=1)[:, :free]

        slope = np.pi * microscope.wavelength_A * float(self.k2.max())
        return fit_influences(pulls, defocus, free=free, sectors=sector_of(self.cos2, self.sin2), rad_per_A=slope)


def pixels_of(half_plane: np.ndarray, pixel_size_A: float) -> Points:
    """Return all pixels of a half plane except those next to the axes, which edges and camera rows make bright.

    Parameters
    ----------
    half_plane : ndarray ``[box, box // 2 + 1]``
        ``values`` of a :class:`LogSpectrum` or one of its ``regions``.
    pixel_size_A : float
        Pixel size of its windows.
    """
    box = half_plane.shape[0]
    y, x = np.mgrid[0:box, 0 : box // 2]
    y = np.where(y >= box // 2, y - box, y)
    radius2 = x**2 + y**2
    use = (x > _AXIS_PX) & (np.abs(y) > _AXIS_PX) & (radius2 < (box // 2) ** 2)
    x, y, radius2 = x[use], y[use], radius2[use]
    k2 = radius2 / (box * pixel_size_A) ** 2
    values = half_plane[:, : box // 2][use].astype(np.float64)
    return Points(k2, (x**2 - y**2) / radius2, 2.0 * x * y / radius2, values, np.ones(len(x)))


def polar_cells(points: Points, unit: float) -> Points:
    """Average pixels over cells of one radius (multiples of ``unit``, 1/Å) and 5°."""
    theta = 0.5 * np.arctan2(points.sin2, points.cos2) % np.pi
    azimuth = np.minimum((theta * (_AZIMUTHS / np.pi)).astype(int), _AZIMUTHS - 1)
    cell = np.rint(np.sqrt(points.k2) / unit).astype(int) * _AZIMUTHS + azimuth
    count = np.bincount(cell)
    seen = count > 0
    k2, cos2, sin2, values = (
        np.bincount(cell, weights=field)[seen] / count[seen]
        for field in (points.k2, points.cos2, points.sin2, points.values)
    )
    return Points(k2, cos2, sin2, values, count[seen].astype(np.float64))
