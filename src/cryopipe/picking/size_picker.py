"""What pickers by size share: prepare a micrograph, compute a response, and take its maxima as particles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cryopipe.config.declaration.base import require
from cryopipe.config.picking import PickLog, PickShell
from cryopipe.picking.blobs import Response
from cryopipe.picking.maxima import Picks, pick_maxima
from cryopipe.picking.working_image import WorkingImage, working_image


def pick_by_size(
    micrograph: np.ndarray,
    pixel_size_A: float,
    params: PickLog | PickShell,
    respond: Callable[[WorkingImage], tuple[Response, float]],
    *,
    threads: int = 1,
) -> Picks:
    """Return the particles of one micrograph.

    Parameters
    ----------
    micrograph : ndarray ``[y, x]``
        Micrograph with dark protein.
    pixel_size_A : float
        Å per pixel.
    params : PickLog or PickShell
        Parameters with all derived values filled.
    respond : callable
        The method. It returns the response to the working image, and the threshold of its figure of merit.
    threads : int
        Threads of the Fourier transforms.

    Returns
    -------
    Picks
        Positions in pixels of ``micrograph``, zero-based, best first.
    """
    diameter_A, highpass_A = require(params, "particle_diameter_A", "highpass_A")
    work = working_image(
        micrograph,
        pixel_size_A,
        max_resolution_A=params.max_resolution_A,
        highpass_A=highpass_A,
        contrast_window_A=diameter_A,
        outlier_zscore=params.outlier_zscore,
        threads=threads,
    )
    response, threshold = respond(work)
    picks = pick_maxima(
        response,
        work.roughness,
        threshold=threshold,
        noise_threshold=params.noise_threshold,
        distance_px=params.min_distance_fraction * diameter_A / work.pixel_size_A,
        border_px=0.5 * diameter_A / work.pixel_size_A,
        min_merit_ratio=params.min_merit_ratio,
        max_merit_ratio=params.max_merit_ratio,
        max_roughness=params.max_roughness,
    )
    return Picks(picks.xy * np.array(work.scale_xy), picks.merit)
