"""Peaks of a response map by non-maximum suppression, for particle picking.

Local maxima (8 neighbours) above the threshold are taken in falling order, and each masks the disc of its radius. Ties
are broken by the raster order (lower y, then lower x), so that the list depends on the map alone. With one radius for
each pixel this is the greedy masking of RELION's LoG picker [1]_. There is one difference: a pixel on the edge of a masked
disc that is not a local maximum is never picked. The greedy pass over the few candidates runs on the host for both devices.

References
----------
.. [1] J. Zivanov et al., New tools for automated high-resolution cryo-EM structure determination in RELION-3, eLife 7
   (2018) e42166, doi:10.7554/eLife.42166.
"""

from __future__ import annotations

import numpy as np

from cryopipe.kernels._dispatch import Array, backend_of, check, contiguous
from cryopipe.kernels.cpu import peaks as cpu


def find_peaks(
    response: Array,
    radius: Array | float,
    *,
    threshold: float = -np.inf,
    upper_threshold: float = np.inf,
    border: int = 0,
) -> tuple[Array, Array, Array]:
    """Return the remaining peaks, best first.

    Parameters
    ----------
    response : float32 [y, x]
        Finite response map.
    radius : float, or float32 [y, x]
        Distance in pixels below which a peak suppresses lower ones. In a map, the radius of a peak is that of its pixel.
    threshold : float
        Peaks must be higher than this.
    upper_threshold : float
        Peaks higher than this (ice, gold) suppress others but are not returned.
    border : int
        Pixels within this distance of the edge are not peaks.

    Returns
    -------
    y, x : int64 [p]
    score : float32 [p]
        Sorted by falling score. Equal scores are sorted by y, then x.

    Raises
    ------
    TypeError
        Wrong dtype, or NumPy and CuPy arrays mixed.
    ValueError
        Wrong shape, a response that is not finite, a negative radius or border.
    """
    radii: Array = None if isinstance(radius, float | int) else radius
    backend = backend_of(response=response, radius=radii)
    check("response", response, np.float32, (None, None))
    if radii is not None:
        check("radius", radii, np.float32, tuple(response.shape))
        if radii.size and not float(radii.min()) >= 0:
            raise ValueError(f"radius must not be negative (found {float(radii.min())}).")
    elif not float(radius) >= 0:
        raise ValueError(f"radius must not be negative (found {radius}).")
    if border < 0:
        raise ValueError(f"border must not be negative, not {border}.")
    if response.size and not bool(abs(response).max() < np.inf):
        raise ValueError("response must be finite, but it contains NaN or infinity.")
    if backend == "cpu":
        y, x, score = (np.asarray(a) for a in _candidates_cpu(contiguous(response, np.float32), threshold, border))
    else:
        from cryopipe.kernels.cuda import peaks as cuda

        y, x, score = cuda.candidates(contiguous(response, np.float32), threshold, border)
    order = np.lexsort((x, y, -score))
    y, x, score = y[order], x[order], score[order]
    if radii is None:
        own = np.full(y.size, float(radius), np.float32)
    elif backend == "cpu":
        own = radii[y, x]
    else:
        own = cuda.values_at(radii, y, x)
    keep = cpu.suppress(y, x, own) & (score <= upper_threshold)
    found = (y[keep], x[keep], score[keep])
    return found if backend == "cpu" else cuda.to_device(*found)


def _candidates_cpu(response: np.ndarray, threshold: float, border: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    marked = np.zeros(response.shape, np.bool_)
    cpu.local_maxima(response, np.float64(threshold), int(border), marked)
    y, x = np.nonzero(marked)
    return y, x, response[y, x]
