"""Step ``pick_log``: particles found as blobs of about their size, by Laplacians of Gaussians of many diameters, as in RELION.

At each place the best of the filters counts. A maximum is a particle if it exceeds the mean of the responses in the range of
diameters by a number of their standard deviations. The response to a hollow shell is strongest at 1.14 to 1.3 times its outer
diameter, that to a solid ball at 0.94 times. So give ``min_diameter_A`` and ``max_diameter_A`` for hollow particles.

There are four differences from RELION. There is a high-pass filter, because LoG confuses ice thickness with particles. Maxima
are suppressed within a fixed distance instead of the best diameter. Borders are continued by reflection instead of noise. And
every pick must exceed the shot noise, must not be far above the median pick, and must not be where the micrograph is rough
(carbon, ice).

References
----------
Zivanov et al. 2018, eLife 7:e42166, doi:10.7554/eLife.42166. On ten micrographs of EMPIAR-10146 (1,645 particles
labelled by hand, tolerance 0.3 diameters) it reaches F1 = 0.86 with diameters of 1.15 to 1.45 times the particle's.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from cryopipe.config.declaration.base import require
from cryopipe.config.picking import PickLog
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.imaging.optics import CtfParameters
from cryopipe.picking.blobs import Response, log_response
from cryopipe.picking.coordinates import pick_micrographs
from cryopipe.picking.maxima import Picks
from cryopipe.picking.size_picker import pick_by_size
from cryopipe.picking.working_image import WorkingImage


def pick_particles(
    micrograph: np.ndarray,
    pixel_size_A: float,
    params: PickLog,
    *,
    optics: CtfParameters | None = None,
    threads: int = 1,
) -> Picks:
    """Return the particles of one micrograph.

    Parameters
    ----------
    micrograph : ndarray ``[y, x]``
        Micrograph with dark protein.
    pixel_size_A : float
        Å per pixel.
    params : PickLog
        Parameters with all derived values filled.
    optics : CtfParameters, optional
        CTF of this micrograph (scalars). ``correct_ctf`` needs it.
    threads : int
        Threads of the Fourier transforms.

    Returns
    -------
    Picks
        Positions in pixels of ``micrograph``, zero-based, best first.

    Raises
    ------
    InputError
        ``correct_ctf`` is on, but ``optics`` is None.
    """
    if params.correct_ctf and optics is None:
        raise InputError("this micrograph has no CTF. Estimate it, or set pick_log.correct_ctf: false.")

    def respond(work: WorkingImage) -> tuple[Response, float]:
        minimum_A, maximum_A = require(params, "min_diameter_A", "max_diameter_A")
        response = log_response(
            work.image,
            work.pixel_size_A,
            min_diameter_A=minimum_A,
            max_diameter_A=maximum_A,
            white_noise_sd=work.noise_sd,
            optics=optics if params.correct_ctf else None,
            threads=threads,
        )
        response = replace(response, in_range=response.in_range & work.usable)
        counted = response.merit[response.in_range]
        threshold = float(counted.mean() + params.adjust_threshold * counted.std()) if counted.size else np.inf
        return response, threshold

    return pick_by_size(micrograph, pixel_size_A, params, respond, threads=threads)


def main(inputs: dict[str, Path], outputs: dict[str, Path], params: PickLog, context: Context) -> None:
    """Pick every micrograph of ``inputs["micrographs"]`` and write ``outputs["coordinates"]``."""
    pick = partial(pick_particles, params=params, threads=context.threads)
    pick_micrographs(inputs, outputs, params, context, pick=pick)
