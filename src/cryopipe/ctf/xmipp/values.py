"""Nonlinear parameters of the model of a spectrum: their bounds, priors and meaning."""

from __future__ import annotations

import numpy as np

from cryopipe.ctf.defocus import Microscope
from cryopipe.ctf.xmipp.background import Hill
from cryopipe.ctf.xmipp.envelope import Envelope

Values = dict[str, float]

#: Nonlinear parameters: (typical size, lower bound, upper bound). Of envelope parameters the squares are fitted, since the
#: logarithm of the envelope is linear in them. sq is q; cN and gN are centre and log sharpness of a Gaussian; cNa, cNb and hN
#: are its ellipticity (`background`).
SPECS: dict[str, tuple[float, float, float]] = {
    "z": (100.0, 100.0, 1e6),
    "a": (100.0, -2e4, 2e4),
    "b": (100.0, -2e4, 2e4),
    "phi": (0.1, -10.0, 10.0),
    "convergence2": (0.005, 0.0, 25.0),
    "spread2": (20.0, 0.0, 400.0),
    "longitudinal2": (1e4, 0.0, 1e6),
    "transversal2": (2.0, 0.0, 1e4),
    "linear": (0.3, -0.7, 0.7),
    "quadratic": (0.3, -0.2, 0.7),
    "sq": (3.0, 1.0, 80.0),
    "sqa": (0.3, -4.0, 4.0),
    "sqb": (0.3, -4.0, 4.0),
    **{f"c{i}": (0.02, 0.005, 1.0) for i in (1, 2)},
    **{f"g{i}": (0.5, 0.0, 11.5) for i in (1, 2)},
    **{f"c{i}{axis}": (0.003, -0.02, 0.02) for i in (1, 2) for axis in "ab"},
    **{f"h{i}": (0.3, -3.0, 3.0) for i in (1, 2)},
}
#: Priors (value, tolerance): degenerate parameters stay near these values unless the spectrum determines them.
PRIORS: dict[str, tuple[float, float]] = {
    "spread2": (0.0, 100.0),
    "longitudinal2": (0.0, 2e5),
    "transversal2": (0.0, 20.0),
    "linear": (0.0, 0.3),
    "quadratic": (0.0, 0.3),
    "sq": (20.0, 10.0),
    "sqa": (0.0, 0.3),
    "sqb": (0.0, 0.3),
    **{f"c{i}{axis}": (0.0, 0.005) for i in (1, 2) for axis in "ab"},
    **{f"h{i}": (0.0, 1.0) for i in (1, 2)},
}
#: Values at which a fit starts if nothing better is known.
DEFAULTS: Values = {
    "z": 15000.0,
    "a": 0.0,
    "b": 0.0,
    "phi": 0.0,
    "convergence2": 0.005,
    "spread2": 0.5,
    "longitudinal2": 1e2,
    "transversal2": 0.1,
    "linear": 0.0,
    "quadratic": 0.0,
    "sq": 15.0,
    "sqa": 0.0,
    "sqb": 0.0,
}
#: Chromatic aberration, mm: the usual value of an objective lens. Only its product with the energy spread is determined.
_CHROMATIC_MM = 2.0


def envelope_of(v: Values, reference: float, amplitude: float = 1.0) -> Envelope:
    """Return the envelope with the fitted values."""
    return Envelope(
        amplitude=amplitude,
        chromatic_mm=_CHROMATIC_MM,
        energy_spread_eV=max(v["spread2"], 0.0) ** 0.5,
        convergence_mrad=max(v["convergence2"], 0.0) ** 0.5,
        longitudinal_A=max(v["longitudinal2"], 0.0) ** 0.5,
        transversal_A=max(v["transversal2"], 0.0) ** 0.5,
        linear_A=v["linear"] / reference,
        quadratic_A2=v["quadratic"] / reference**2,
    )


def hill_of(v: Values, i: int) -> Hill:
    """Return the first or second Gaussian of the background."""
    return Hill(v[f"c{i}"], float(np.exp(v[f"g{i}"])), v.get(f"c{i}a", 0.0), v.get(f"c{i}b", 0.0), v.get(f"h{i}", 0.0))


def squared_envelope(
    u: np.ndarray, defocus_A: np.ndarray | float, v: Values, microscope: Microscope, reference: float
) -> np.ndarray:
    """Return E² of the fitted parameters.

    Parameters
    ----------
    u : ndarray ``[n]``
        Frequencies, 1/Å.
    defocus_A : ndarray ``[n]`` or float
        Defocus at each frequency, Å.
    v : dict
        Values of the fit.
    microscope : Microscope
        Voltage (kV), Cs (mm), amplitude contrast.
    reference : float
        Frequency by which the empirical factor is scaled, 1/Å.
    """
    return envelope_of(v, reference).at(u, defocus_A, microscope) ** 2
