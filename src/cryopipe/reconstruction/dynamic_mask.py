"""The solvent mask of the current map, with checks so that a bad map does not give a bad mask.

The map is low-passed and thresholded (`cryopipe.imaging.masks.solvent_mask`). The mask is 1 up to ``near_A`` from the density
and falls to 0 at ``far_A`` (cryoSPARC's dynamic mask: threshold 0.2, 6 and 14 Å). If the mask of a half is made from its own
map, it contains nothing from the other half.
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
    """Return a soft mask around the density of the map inside the particle's sphere, float32 ``[z, y, x]``, 0 to 1.

    Parameters
    ----------
    volume : ndarray float32 ``[z, y, x]``
        Map with positive density.
    pixel_size_A : float
    diameter_A : float
        Diameter of the particle. The mask is limited by a soft sphere that reaches ``far_A`` beyond it.
    threshold : float
        Share of the low-passed map's 99.9 percentile.
    low_pass_A : float
        Resolution of the map that is thresholded.
    near_A, far_A : float
        Distances from the density at which the mask begins to fall and at which it reaches 0.
    volume_A3 : float, optional
        Expected volume of the particle (1.21 Å³ per Da of protein). That of the mask must be at least half of it.

    Raises
    ------
    InputError
        No density is above the threshold, or the mask is smaller than half of the particle (the threshold is too high). If
        the threshold is too low, or the map is noise, the mask is at most the whole sphere.
    """
    if not 0 <= near_A < far_A:
        raise InputError(f"the mask distances near {near_A:g} Å and far {far_A:g} Å must be 0 <= near < far.")
    box = volume.shape[0]
    reach_px = (0.5 * diameter_A + near_A) / pixel_size_A
    if diameter_A <= 0 or reach_px > 0.5 * box:
        raise InputError(
            f"a particle of {diameter_A:g} Å with {near_A:g} Å around it does not fit into a box of "
            f"{box * pixel_size_A:g} Å. Check diameter and pixel size, or extract with a larger box."
        )
    sphere = soft_sphere(box, reach_px, edge_px=(far_A - near_A) / pixel_size_A)
    # The sphere is applied first, so that overlapping neighbours in the corners do not determine the threshold.
    mask = sphere * solvent_mask(
        volume * sphere, pixel_size_A, low_pass_A=low_pass_A, threshold=threshold, extend_A=near_A,
        edge_A=far_A - near_A, threads=threads,
    )  # fmt: skip
    held = float(mask.sum(dtype=np.float64)) * pixel_size_A**3
    if volume_A3 is not None and held < 0.5 * volume_A3:
        raise InputError(
            f"the mask has {held:.0f} Å³, less than half of the {volume_A3:.0f} Å³ of the particle. Lower the threshold "
            f"({threshold:g}), or check the pixel size."
        )
    return mask
