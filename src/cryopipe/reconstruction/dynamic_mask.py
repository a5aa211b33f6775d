"""The solvent mask of the current map, with guards that keep a bad map from making a bad mask.

The map is low-passed and thresholded (`cryopipe.imaging.masks.solvent_mask`); the mask reaches 1 as far as ``near_A``
from the density and falls to 0 at ``far_A`` (cryoSPARC's dynamic mask: threshold 0.2, 6 and 14 Å). A half's mask made
from its own map shares nothing with the other half.
"""

from __future__ import annotations

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.masks import soft_sphere, solvent_mask


def dynamic_mask(
    volume: np.ndarray,
    pixel_size_A: float,
    *,
    diameter_A: float,
    threshold: float = 0.2,
    low_pass_A: float = 12.0,
    near_A: float = 6.0,
    far_A: float = 14.0,
    volume_A3: float | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Return a soft mask around the map's density inside the particle's sphere, float32 ``[z, y, x]``, 0 to 1.

    Parameters
    ----------
    volume : ndarray float32 ``[z, y, x]``
        Density positive.
    pixel_size_A : float
    diameter_A : float
        The particle's. The mask is cut by a soft sphere that reaches ``far_A`` beyond it.
    threshold : float
        Share of the low-passed map's 99.9 percentile.
    low_pass_A : float
        Resolution of the map that is thresholded.
    near_A, far_A : float
        Distances from the density at which the mask leaves 1 and reaches 0.
    volume_A3 : float, optional
        The particle's expected volume (1.21 Å3 per Da of protein): the mask's own must be at least half of it.

    Raises
    ------
    InputError
        No density above the threshold, or a mask smaller than half the particle (a threshold too high). Too low a
        threshold, or noise, gives the whole sphere at most.
    """
    if not 0 <= near_A < far_A:
        raise InputError(f"mask distances near {near_A:g} Å and far {far_A:g} Å: 0 <= near < far is needed")
    box = volume.shape[0]
    reach_px = (0.5 * diameter_A + near_A) / pixel_size_A
    if diameter_A <= 0 or reach_px > 0.5 * box:
        raise InputError(
            f"a particle of {diameter_A:g} Å with {near_A:g} Å around it does not fit into a box of "
            f"{box * pixel_size_A:g} Å: check diameter and pixel size, or extract with a larger box"
        )
    sphere = soft_sphere(box, reach_px, edge_px=(far_A - near_A) / pixel_size_A)
    # The sphere goes first: density that overlapping neighbours leave in the corners must not set the threshold.
    mask = sphere * solvent_mask(
        volume * sphere, pixel_size_A, low_pass_A=low_pass_A, threshold=threshold, extend_A=near_A,
        edge_A=far_A - near_A, threads=threads,
    )  # fmt: skip
    held = float(mask.sum(dtype=np.float64)) * pixel_size_A**3
    if volume_A3 is not None and held < 0.5 * volume_A3:
        raise InputError(
            f"the mask holds {held:.0f} Å3, less than half of the particle's {volume_A3:.0f} Å3: lower the threshold "
            f"({threshold:g}) or check the pixel size"
        )
    return mask
