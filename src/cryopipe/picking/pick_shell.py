"""Step ``pick_shell``: particles found by the matched filter of a ball, or a hollow ball, under the micrograph's CTF.

The template is known without any data: the transform of a ball, minus that of its cavity, times the CTF (`shell`). A pick
must exceed the spread of the response and the shot noise, must not be far above the median pick, and must not be where the
micrograph is rough (carbon, ice).

References
----------
Sigworth 2004, J. Struct. Biol. 145:111, doi:10.1016/j.jsb.2003.10.025 (the matched filter as the optimal detector). On ten
micrographs of EMPIAR-10146 (1,645 particles labelled by hand, tolerance 0.3 diameters) it reaches F1 = 0.97 with a cavity
of 0.6 diameters. There `pick_log` reaches 0.86, with positions half as precise. Known limits: it needs a CTF, and its response
to particles with a shape far from a ball is weak.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from cryopipe.config.declaration.base import require
from cryopipe.config.picking import PickShell
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.imaging.optics import CtfParameters
from cryopipe.picking.blobs import Response
from cryopipe.picking.coordinates import pick_micrographs
from cryopipe.picking.maxima import Picks
from cryopipe.picking.shell import shell_response
from cryopipe.picking.size_picker import pick_by_size
from cryopipe.picking.working_image import WorkingImage


def pick_particles(
    micrograph: np.ndarray,
    pixel_size_A: float,
    params: PickShell,
    *,
    optics: CtfParameters | None,
    threads: int = 1,
) -> Picks:
    """Return the particles of one micrograph.

    Parameters
    ----------
    micrograph : ndarray ``[y, x]``
        Micrograph with dark protein.
    pixel_size_A : float
        Å per pixel.
    params : PickShell
        Parameters with all derived values filled.
    optics : CtfParameters or None
        CTF of this micrograph (scalars).
    threads : int
        Threads of the Fourier transforms.

    Returns
    -------
    Picks
        Positions in pixels of ``micrograph``, zero-based, best first.

    Raises
    ------
    InputError
        ``optics`` is None.
    """
    if optics is None:
        raise InputError("the template needs a CTF, but this micrograph has none. Estimate it, or use pick_log.")

    def respond(work: WorkingImage) -> tuple[Response, float]:
        (diameter_A,) = require(params, "particle_diameter_A")
        response = shell_response(
            work.image,
            work.pixel_size_A,
            outer_diameter_A=diameter_A,
            inner_diameter_A=params.cavity_diameter_A or 0.0,
            optics=optics,
            white_noise_sd=work.noise_sd,
            usable=work.usable,
            threads=threads,
        )
        return response, params.threshold

    return pick_by_size(micrograph, pixel_size_A, params, respond, threads=threads)


def main(inputs: dict[str, Path], outputs: dict[str, Path], params: PickShell, context: Context) -> None:
    """Pick every micrograph of ``inputs["micrographs"]`` and write ``outputs["coordinates"]``."""
    pick = partial(pick_particles, params=params, threads=context.threads)
    pick_micrographs(inputs, outputs, params, context, pick=pick)
