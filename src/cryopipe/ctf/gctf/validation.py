"""Self-consistency of a fit: fits of parts of the band and of the micrograph must give the same result.

K. Zhang 2016, doi:10.1016/j.jsb.2015.11.003, validates a CTF by repeating the fit in resolution ranges and in regions.
The formula of his score is not published. Here each of six parts (two bands, four quarters of the micrograph) is
searched over many rings around the fit and refined. A part has the score 1 if it gives the same mean defocus and
astigmatism, and 0 if these are half a ring off at its finest resolution. A fit on a wrong ring is not the best fit of
any part.
"""

from __future__ import annotations

import numpy as np

from cryopipe.ctf.defocus import Defocus, Microscope
from cryopipe.ctf.gctf.fit import LogFit, mean_defocus_scores, refine
from cryopipe.ctf.gctf.points import Points, pixels_of, polar_cells
from cryopipe.ctf.gctf.spectrum import LogSpectrum

#: Do not trust fits below this. On 30 phantoms right fits scored 0.60 to 0.97, and fits on wrong rings 0 to 0.51.
LEAST_VALIDATION = 0.55
#: Range of the search (Å) to both sides: six rings at 4 Å and 300 kV, in steps of an eighth of a ring.
_SEARCHED_A, _STEP_A = 5000.0, 100.0
#: Smaller defoci are not tried: their first zero is at 3.1 Å or finer (300 kV), so that there is no ring in the band.
_LEAST_DEFOCUS_A = 500.0


def validation_score(
    spectrum: LogSpectrum, fit: LogFit, microscope: Microscope, *, coarse_A: float, fine_A: float, b_factor_A2: float
) -> float:
    """Return how well the parts of a micrograph agree with a fit, from 0 (not at all, or there is no fit) to 1.

    Parameters
    ----------
    spectrum : LogSpectrum
        Spectrum with its regions.
    fit : LogFit
        The fit to be judged. Frequencies beyond its resolution are not used.
    microscope : Microscope
        Voltage, Cs, amplitude contrast.
    coarse_A, fine_A : float
        Band of the fit.
    b_factor_A2 : float
        Weight of high frequencies in the fit. The bands are fitted without it.
    """
    fine_A = max(fine_A, fit.resolution_A)
    if fine_A >= 0.8 * coarse_A:
        return 0.0
    unit = 1.0 / (spectrum.box * spectrum.pixel_size_A)
    middle_A = 1.0 / np.sqrt(0.5 * (1.0 / coarse_A**2 + 1.0 / fine_A**2))
    whole = pixels_of(spectrum.values, spectrum.pixel_size_A)
    parts = [(whole, coarse_A, middle_A, 0.0), (whole, middle_A, fine_A, 0.0)]
    parts += [(pixels_of(r, spectrum.pixel_size_A), coarse_A, fine_A, b_factor_A2) for r in spectrum.regions]
    scores = []
    for points, coarse, fine, b_factor in parts:
        cells = polar_cells(points.within(coarse, fine), unit)
        moved = _refitted(cells, fit.defocus, microscope, b_factor)
        d = fit.defocus
        change = np.linalg.norm([moved.mean_A - d.mean_A, moved.a_A - d.a_A, moved.b_A - d.b_A])
        scores.append(max(0.0, 1.0 - change / (0.5 * fine**2 / microscope.wavelength_A)))
    return float(np.mean(scores))


def _refitted(cells: Points, around: Defocus, microscope: Microscope, b_factor_A2: float) -> Defocus:
    """Return the best defocus of a part within 5000 Å, with the phase shift of ``around``."""
    means = around.mean_A + np.arange(-_SEARCHED_A, _SEARCHED_A + 1.0, _STEP_A)
    means = means[means > _LEAST_DEFOCUS_A]
    shift = np.array([around.phase_shift_rad])
    scores = mean_defocus_scores(cells, around, means, shift, microscope, b_factor_A2)[0]
    start = Defocus(float(means[scores.argmax()]), around.a_A, around.b_A, around.phase_shift_rad)
    return refine(cells, start, microscope, b_factor_A2, 60.0)
