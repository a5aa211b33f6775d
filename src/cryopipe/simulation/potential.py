"""The electrostatic potential of a particle in ice, projected (2-D) or not (3-D), computed from its atoms.

Each atom scatters by its tabulated electron form factor [1]_, broadened by its B factor. It also displaces solvent: a
Gaussian of its volume is subtracted from a continuum of vitreous ice [2]_. Hydrogens are absent from most models, so
they ride on the heavy atoms in the average composition of protein. A few common radial functions (singular value
decomposition) represent the form factors of all kinds of atoms. So a handful of transforms of weighted points
(`cryopipe.simulation.spreading`) give the potential at any pixel size. No map is interpolated, and nothing is shared
with the engines that the data will judge.

References
----------
.. [1] International Tables for Crystallography C, 4.3.2.2 (Peng et al. 1996, doi:10.1107/S0108767395014371), from
   gemmi.
.. [2] R. D. B. Fraser, T. P. MacRae, E. Suzuki, J. Appl. Cryst. 11 (1978) 693, doi:10.1107/S0021889878014296.
"""

from __future__ import annotations

import gemmi
import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from cryopipe.errors import InputError
from cryopipe.simulation.atoms import AtomicModel
from cryopipe.simulation.spreading import transform_2d, transform_3d

#: h² / (2 π m e) in V Å² (CODATA): from a form factor in Å to a potential in V.
FORM_FACTOR_TO_VOLT_A2 = 47.87801
#: Molecules of water per Å³ in vitreous ice of 0.94 g/cm³.
ICE_MOLECULES_PER_A3 = 0.0314
#: Hydrogens that ride on each heavy atom: the average composition of protein.
RIDING_HYDROGENS = {"C": 1.25, "N": 1.1, "O": 0.2}
#: Volumes in Å³ that an atom displaces (Fraser et al. 1978; metals as in CRYSOL).
VOLUMES_A3 = {
    "H": 5.15, "C": 16.44, "N": 2.49, "O": 9.13, "S": 19.86, "P": 5.73, "FE": 7.99,
    "MG": 17.16, "CA": 31.89, "MN": 9.20, "CU": 8.78, "ZN": 9.85,
}  # fmt: skip
#: Singular values below this share of the largest are left out: the rounding of float32, in which the sums are made.
_RANK_TOLERANCE = 1e-6
#: Frequencies at which form factors are sampled; the cubic spline through them errs by less than float32 does.
_RADIAL_SAMPLES = 512


def interaction_parameter(voltage_kV: float) -> float:
    """Return σ in rad / (V Å): the phase shift by a potential, relativistically correct (0.000653 at 300 kV)."""
    rest_keV = 510.99895
    wavelength = 12.2643247 / np.sqrt(voltage_kV * 1e3 * (1 + 0.978466e-6 * voltage_kV * 1e3))
    return float(2 * np.pi / (wavelength * voltage_kV * 1e3) * (rest_keV + voltage_kV) / (2 * rest_keV + voltage_kV))


def water_form_factor(k: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the form factor (Å) of a water molecule, the sum of those of its atoms, at ``k`` (1/Å)."""
    return _tabulated("O", k) + 2 * _tabulated("H", k)


def carbon_form_factor(k: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the form factor (Å) of a carbon atom at ``k`` (1/Å)."""
    return _tabulated("C", k)


def ice_potential_V() -> float:
    """Return the mean inner potential of vitreous ice (4.6 V)."""
    return float(ICE_MOLECULES_PER_A3 * water_form_factor(np.zeros(1))[0] * FORM_FACTOR_TO_VOLT_A2)


def form_factor(element: str, k: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the form factor (Å) of an atom with its riding hydrogens, minus that of the displaced ice, at ``k`` (1/Å).

    Raises
    ------
    InputError
        The displaced volume of the element is not known.
    """
    name = element.upper()
    if name not in VOLUMES_A3:
        raise InputError(
            f"element {element}: its displaced volume is not known (known: {', '.join(VOLUMES_A3)}). Remove these atoms."
        )
    hydrogens = RIDING_HYDROGENS.get(name, 0.0)
    scattered = _tabulated(element, k) + hydrogens * _tabulated("H", k)
    displaced = _displaced(VOLUMES_A3[name], k) + hydrogens * _displaced(VOLUMES_A3["H"], k)
    return np.asarray(scattered - displaced)


class PotentialSampler:
    """Samples the potential of one model on grids of one pixel size.

    Parameters
    ----------
    model : AtomicModel
        Atoms, relative to the particle's centre.
    pixel_size_A : float
        Å.
    """

    def __init__(self, model: AtomicModel, pixel_size_A: float) -> None:
        self.model, self.pixel_size_A = model, pixel_size_A
        kinds = np.stack([model.elements.astype("U3"), np.char.mod("%.1f", model.b_factors_A2)], axis=1)
        unique, kind_of = np.unique(kinds, axis=0, return_inverse=True)
        # up to the corner of a volume's transform
        k = np.linspace(0, np.sqrt(3) * 0.5 / pixel_size_A * 1.001, _RADIAL_SAMPLES)
        curves = np.stack([form_factor(str(e), k) * np.exp(-float(b) * k**2 / 4) for e, b in unique])  # [kinds, k]
        u, s, v = np.linalg.svd(curves, full_matrices=False)
        rank = int(np.count_nonzero(s > _RANK_TOLERANCE * s[0]))
        weights = (u * s)[:, :rank][kind_of.ravel()] * model.occupancies[:, None]
        self.weights = weights.astype(np.float32)  # [atoms, rank]
        self.radial = CubicSpline(k, v[:rank], axis=1)

    def projection(self, rotation: NDArray[np.float64], box: int) -> NDArray[np.complex64]:
        """Return the spectrum of the potential projected along the view of a pose.

        Parameters
        ----------
        rotation : float [3, 3]
            Pose matrix A; an atom at r is seen at the first two components of ``A r``.
        box : int
            Even length of the image.

        Returns
        -------
        complex64 [box, box // 2 + 1]
            ``rfft2`` (unnormalised, particle at pixel (0, 0)) of the projected potential in V Å.
        """
        seen = self.model.positions_A @ np.asarray(rotation, np.float64)[:2].T  # [n, 2 (x, y)]
        parts = transform_2d(seen / self.pixel_size_A, self.weights, box)
        return np.asarray((parts * self._functions_2d(box)).sum(axis=0))

    def volume(self, box: int, *, threads: int = 1) -> NDArray[np.float32]:
        """Return the potential in V, float32 [z, y, x] with its centre at ``box // 2``.

        Its sum along z times the pixel size is the projection for the identity pose.
        """
        k, half = np.fft.fftfreq(box, self.pixel_size_A), np.fft.rfftfreq(box, self.pixel_size_A)
        radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + half**2).astype(np.float32)
        sample = np.linspace(0, float(radius.max()), 8 * _RADIAL_SAMPLES)
        functions = self.radial(sample) * (FORM_FACTOR_TO_VOLT_A2 / self.pixel_size_A**3)
        # a sphere in Fourier space: the cube's corners and Nyquist planes have no rotational symmetry
        inside = radius < 0.5 / self.pixel_size_A * (1 - 1e-6)
        total = np.zeros(radius.shape, np.complex64)
        for part, curve in zip(self.weights.T, functions, strict=True):
            spectrum = transform_3d(self.model.positions_A / self.pixel_size_A, part, box, threads=threads)
            total += spectrum * (np.interp(radius, sample, curve) * inside).astype(np.float32)
        volume = scipy.fft.irfftn(total, s=(box,) * 3, workers=threads)
        return np.fft.fftshift(volume).astype(np.float32, copy=False)

    def _functions_2d(self, box: int) -> NDArray[np.float32]:
        cached = self.__dict__.setdefault("_cache", {})
        if box not in cached:
            k, half = np.fft.fftfreq(box, self.pixel_size_A), np.fft.rfftfreq(box, self.pixel_size_A)
            radius = np.hypot(k[:, None], half)
            inside = radius < 0.5 / self.pixel_size_A * (1 - 1e-6)
            cached[box] = (self.radial(radius) * inside * (FORM_FACTOR_TO_VOLT_A2 / self.pixel_size_A**2)).astype(
                np.float32
            )
        return np.asarray(cached[box])


def potential_map(model: AtomicModel, *, box: int, pixel_size_A: float, threads: int = 1) -> NDArray[np.float32]:
    """Return the potential of a model in ice in V, float32 [z, y, x]; see :meth:`PotentialSampler.volume`.

    Parameters
    ----------
    model : AtomicModel
        Atoms, relative to the particle's centre.
    box : int
        Even side of the map in pixels.
    pixel_size_A : float
        Å.
    threads : int
        Threads of the transforms.
    """
    return PotentialSampler(model, pixel_size_A).volume(box, threads=threads)


def _tabulated(element: str, k: NDArray[np.float64]) -> NDArray[np.float64]:
    table = gemmi.Element(element).c4322
    squared = np.asarray(k, np.float64) ** 2 / 4  # the tables are in sin(theta)/lambda = k/2
    return np.asarray(np.sum([a * np.exp(-b * squared) for a, b in zip(table.a, table.b, strict=True)], axis=0))


def _displaced(volume_A3: float, k: NDArray[np.float64]) -> NDArray[np.float64]:
    ice = ICE_MOLECULES_PER_A3 * water_form_factor(np.zeros(1))[0]
    return np.asarray(ice * volume_A3 * np.exp(-np.pi * volume_A3 ** (2 / 3) * np.asarray(k, np.float64) ** 2))
