"""Low-pass a map at its local resolution: each voxel from the filtered map of its own cut-off.

A bank of low-passed maps, evenly spaced in frequency, is blended linearly between the two cut-offs beside each voxel's
(Cardone, Heymann & Steven 2013, doi:10.1016/j.jsb.2013.08.002, filter a map so by its local resolution).
"""

from __future__ import annotations

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.filters import low_pass_transfer
from cryopipe.imaging.fourier import cube_box, irfftn_centred, rfftn_centred
from cryopipe.imaging.frequencies import radial_frequency


def local_low_pass(
    volume: np.ndarray,
    resolution_A: np.ndarray,
    pixel_size_A: float,
    *,
    bands: int = 12,
    edge_shells: float = 4.0,
    workers: int = 1,
) -> np.ndarray:
    """Return the map filtered at its local resolution, float32 ``[z, y, x]``.

    Parameters
    ----------
    volume : ndarray ``[z, y, x]``
    resolution_A : ndarray ``[z, y, x]``
        Å at each voxel; what is finer than Nyquist counts as Nyquist.
    pixel_size_A : float
    bands : int
        Maps in the bank, between the coarsest and the finest resolution asked for.
    edge_shells : float
        Width of each filter's cosine edge in Fourier pixels.
    workers : int
        CPU threads; no influence on the result.

    Raises
    ------
    InputError
        Shapes differ, a resolution is not finite or not positive, or fewer than two bands.
    """
    box = cube_box(volume)
    if resolution_A.shape != volume.shape:
        raise InputError(f"a local resolution of shape {resolution_A.shape} does not fit a map of {volume.shape}")
    if not np.isfinite(resolution_A).all() or resolution_A.min() <= 0:
        raise InputError(
            f"local resolutions from {np.min(resolution_A):g} Å: every voxel needs a finite positive one; set voxels "
            "outside the mask to the coarsest"
        )
    if bands < 2:
        raise InputError(f"{bands} bands: at least 2 are needed")
    wanted = np.minimum(1.0 / resolution_A, 0.5 / pixel_size_A).astype(np.float32)
    low, high = float(wanted.min()), float(wanted.max())
    spectrum = rfftn_centred(volume, workers=workers)
    k = radial_frequency(volume.shape, pixel_size_A)
    width = edge_shells / (box * pixel_size_A)

    def filtered(cutoff: float) -> np.ndarray:
        gain = low_pass_transfer(k, cutoff, width=width).astype(np.float32)
        return np.asarray(irfftn_centred(spectrum * gain, box, workers=workers), np.float32)

    if high - low < 1e-3 * width:
        return filtered(high)
    cutoffs = np.linspace(low, high, bands)
    place = (wanted - cutoffs[0]) / (cutoffs[1] - cutoffs[0])
    result = np.zeros(volume.shape, np.float32)
    for i, cutoff in enumerate(cutoffs):
        share = np.maximum(0, 1 - np.abs(place - i))  # a voxel's shares of its two neighbours add up to 1
        if share.any():
            result += share * filtered(float(cutoff))
    return result
