"""Decide which boxes around coordinates can be cut, and cut them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import scipy.fft

from cryopipe.imaging.fourier import resample


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes around coordinates, in pixels of the (downsampled) image.

    Attributes
    ----------
    centre : int64 ``[n, 2]``
        Pixel (x, y) at index ``box // 2`` of the box, its centre.
    rest : float64 ``[n, 2]``
        Coordinate minus ``centre``, within half a pixel.
    reason : list of str
        Why the box cannot be cut. Empty if it can.
    """

    centre: np.ndarray
    rest: np.ndarray
    reason: list[str]


def place_boxes(xy: np.ndarray, box: int, shape: tuple[int, int]) -> Boxes:
    """Round coordinates ``[n, 2]`` (x, y) to pixels and check the boxes around them in an image of ``shape`` (y, x).

    Of several coordinates that round to the same pixel the first one is kept.
    """
    xy = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
    centre = np.floor(xy + 0.5).astype(np.int64)
    low = centre - box // 2
    fits_in = np.concatenate([low >= 0, low + box <= np.array(shape[::-1])], axis=1)
    inside = np.asarray(fits_in.all(axis=1), dtype=bool)
    reasons: list[str] = []
    seen: set[tuple[int, int]] = set()
    for position, fits in zip(map(tuple, centre.tolist()), inside, strict=True):
        if not fits:
            reasons.append(f"its box of {box} px crosses the border")
        elif position in seen:
            reasons.append("identical coordinates")
        else:
            reasons.append("")
            seen.add(position)
    return Boxes(centre, xy - centre, reasons)


def cut_boxes(image: np.ndarray, centre: np.ndarray, box: int) -> np.ndarray:
    """Return the boxes ``[n, box, box]`` float32 around the pixels ``centre`` ``[n, 2]`` (x, y)."""
    result = np.empty((len(centre), box, box), dtype=np.float32)
    for target, (x, y) in zip(result, centre - box // 2, strict=True):
        target[...] = image[y : y + box, x : x + box]
    return result


def friendly_box(length_px: float) -> int:
    """Return the smallest even number without prime factors above 5 that is at least 98 % of ``length_px``."""
    box = 2 * int(np.ceil(0.49 * length_px - 1e-9))
    while scipy.fft.next_fast_len(box, real=True) != box:
        box += 2
    return box


def downsample(image: np.ndarray, factor: float, *, threads: int = 1) -> tuple[np.ndarray, Fraction]:
    """Fourier-crop an image ``[y, x]`` by a factor that is exactly the same on both axes and for every image size.

    Parameters
    ----------
    factor : float
        At least 1. It is rounded to the nearest fraction with a denominator up to 16.

    Returns
    -------
    image, exact : float32 ``[y', x']`` and Fraction
        ``x' = ceil(x / exact)``. A coordinate c becomes ``c / exact``. Sides that are not a multiple of the numerator of
        the fraction are first continued by reflection, so that no pixel is lost and the pixel size is exact.
    """
    exact = Fraction(factor).limit_denominator(16)
    if exact == 1:
        return image.astype(np.float32, copy=False), exact
    step = 2 * exact.numerator  # so that the cropped sides are even, too
    padding = [(0, -n % step) for n in image.shape]
    padded = np.pad(image, padding, mode="symmetric")
    new = tuple(int(n / exact) for n in padded.shape)
    kept = tuple(int(np.ceil(n / exact)) for n in image.shape)
    return resample(padded, new, threads=threads)[: kept[0], : kept[1]], exact
