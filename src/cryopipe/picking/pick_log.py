"""Step ``pick_log``: particles found as blobs of about their size, by Laplacians of Gaussians of some diameters.

The method is that of RELION's picker (Zivanov et al. 2018, eLife 7:e42166, doi:10.7554/eLife.42166). At each place the filter
with the largest response counts. The figure of merit is this response in standard deviations of the same filter's response over
the micrograph. The maxima of the map fall into two groups. One is particles, the other is noise, ice and gaps between particles.
The threshold is between the two groups.

There are six differences from RELION. Responses are divided by their own spread. So no filters outside the range of diameters
are needed, and centres are right to 0.05 to 0.1 diameters, whatever the shape of the particle. The threshold separates two groups
instead of counting standard deviations of the map. There is a high-pass filter, because LoG confuses ice thickness with
particles. Maxima are suppressed within a fixed distance instead of the best diameter. Borders are continued by reflection instead
of noise. And every pick must exceed the shot noise, must not be far above the median pick, and must not be where the micrograph
is rough (carbon, ice). Figures for particles of six shapes and on real micrographs are in docs/benchmarks.md.
"""

from __future__ import annotations

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
from cryopipe.picking.maxima import Picks, parting_merit
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
        diameter_A, minimum_A, maximum_A = require(params, "particle_diameter_A", "min_diameter_A", "max_diameter_A")
        response = log_response(
            work.image,
            work.pixel_size_A,
            min_diameter_A=minimum_A,
            max_diameter_A=maximum_A,
            usable=work.usable,
            white_noise_sd=work.noise_sd,
            optics=optics if params.correct_ctf else None,
            threads=threads,
        )
        parting = parting_merit(
            response,
            distance_px=params.min_distance_fraction * diameter_A / work.pixel_size_A,
            border_px=0.5 * diameter_A / work.pixel_size_A,
            certain=params.certain_merit_ratio,
        )
        return response, parting + params.adjust_threshold

    return pick_by_size(micrograph, pixel_size_A, params, respond, threads=threads)


def main(inputs: dict[str, Path], outputs: dict[str, Path], params: PickLog, context: Context) -> None:
    """Pick every micrograph of ``inputs["micrographs"]`` and write ``outputs["coordinates"]``."""
    pick = partial(pick_particles, params=params, threads=context.threads)
    pick_micrographs(inputs, outputs, params, context, pick=pick)
