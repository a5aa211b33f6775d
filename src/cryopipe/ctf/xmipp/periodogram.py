"""Averaged periodogram of overlapping windows, with measures of the homogeneity of the micrograph.

From each window a fitted plane is subtracted. It is normalised to mean 0 and standard deviation 1, and its edges are
tapered. The squared moduli of the transforms are averaged (Fernández et al. 1997; xmipp ``ctf_estimate_from_micrograph``).
The average is the true spectrum convolved with the kernel of the window, so the lag window is the factor by which a fringe
is weakened.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from cryopipe.ctf.windows import window_side
from cryopipe.errors import InputError
from cryopipe.imaging.fourier import resample

#: Two by two windows: fewer give neither an average nor a scatter.
_LEAST_WINDOWS = 4
#: Cells of the local spectra: radii between these digital frequencies, and sectors.
_LOCAL_BAND = (0.05, 0.4)
_LOCAL_RADII, _LOCAL_SECTORS = 48, 4


@dataclass(frozen=True)
class Periodogram:
    """Averaged power of windows over half the Fourier plane; white noise has the power 1.

    Attributes
    ----------
    power : ndarray ``[n, n // 2 + 1]`` float64
        Row y has the frequency ``fftfreq(n)[y]``, column x the frequency x / n (cycles per pixel).
    deviation : ndarray ``[n, n // 2 + 1]`` float64
        Standard deviation over the windows.
    local : ndarray ``[windows, cells]`` float64
        Logarithms of the mean power of each window in cells of radius and direction. Windows are in order of rows.
    independent : float
        Number of independent windows that would give the same variance of the average.
    lag_window : ndarray ``[n]`` float64
        Autocorrelation of the taper along one axis at lags 0 .. n - 1 pixels, 1 at lag 0.
    pixel_size_A : float
        Pixel size of the windows.
    """

    power: np.ndarray
    deviation: np.ndarray
    local: np.ndarray
    independent: float
    lag_window: np.ndarray
    pixel_size_A: float

    @property
    def box(self) -> int:
        """Side of the windows."""
        return int(self.power.shape[0])


def downsampled_micrograph(
    micrograph: np.ndarray, pixel_size_A: float, working_pixel_A: float
) -> tuple[np.ndarray, float]:
    """Return the micrograph ``[y, x]`` resampled to about ``working_pixel_A`` (if that is coarser), and its pixel size.

    The pixel size is exact in y. In x it differs by less than 1 / (number of columns).
    """
    image = np.asarray(micrograph, dtype=np.float32)
    if working_pixel_A <= pixel_size_A * 1.001:
        return image, pixel_size_A
    shape = tuple(2 * round(n * pixel_size_A / working_pixel_A / 2) for n in image.shape)
    return resample(image, shape), pixel_size_A * image.shape[0] / shape[0]


def averaged_periodogram(
    image: np.ndarray,
    pixel_size_A: float,
    *,
    window: int,
    overlap: float,
    border_windows: int = 0,
    taper_fraction: float = 0.025,
) -> Periodogram:
    """Return the averaged periodogram of an image ``[y, x]``.

    Parameters
    ----------
    image : ndarray ``[y, x]``
        Image at the working pixel size.
    pixel_size_A : float
        Pixel size of ``image``.
    window : int
        Side of the windows, an even number. If there are less than two windows along a side, see `window_side`.
    overlap : float
        Share of its side by which a window overlaps its neighbour, from 0 to less than 1.
    border_windows : int
        Rows and columns of windows left out at each side.
    taper_fraction : float
        Share of the side over which a cosine brings each edge to 0.

    Raises
    ------
    InputError
        The image is flat, not finite, or too small for two by two windows of 128 pixels.
    """
    sd = float(image.std(dtype=np.float64))
    if not np.isfinite(sd) or sd == 0:
        raise InputError(
            "the micrograph is flat or has values that are not finite, so it has no spectrum to fit. Leave it out."
        )
    window = window_side(image.shape, window, pixel_size_A, step="estimate_ctf_xmipp")
    starts = [_starts(n, window, overlap, border_windows) for n in image.shape]
    count = len(starts[0]) * len(starts[1])
    if count < _LEAST_WINDOWS:
        raise InputError(
            f"a micrograph of {image.shape[1]} x {image.shape[0]} pixels of {pixel_size_A:.3g} Å has room for {count} "
            f"windows of {window} pixels, but {_LEAST_WINDOWS} are needed. Set estimate_ctf_xmipp.border_windows to 0 or "
            "overlap to 0.5 or more."
        )
    taper = _taper(window, taper_fraction)
    remover = _PlaneRemover(window)
    mask = taper[:, None] * taper[None, :] / np.float32(np.sqrt((taper.astype(np.float64) ** 2).sum() ** 2))
    cells, cell_count = _local_cells(window)
    total = np.zeros((window, window // 2 + 1))
    squares = np.zeros_like(total)
    local = np.empty((count, len(cell_count)))
    for i, (y, x) in enumerate((y, x) for y in starts[0] for x in starts[1]):
        tile = remover(image[y : y + window, x : x + window])
        tile /= max(np.float32(tile.std(dtype=np.float64)), np.float32(1e-6 * sd))
        transform = scipy.fft.rfft2(tile * mask, workers=1)
        power = transform.real**2 + transform.imag**2
        total += power
        squares += power * power
        sums = np.bincount(cells, weights=power.ravel(), minlength=len(cell_count) + 1)[:-1]
        local[i] = np.log(np.maximum(sums / cell_count, 1e-12))
    mean = total / count
    lags = np.correlate(taper.astype(np.float64), taper.astype(np.float64), mode="full")[window - 1 :]
    lags /= lags[0]
    return Periodogram(
        mean,
        np.sqrt(np.maximum(squares / count - mean**2, 0.0)),
        local,
        independent_windows(starts[0], lags) * independent_windows(starts[1], lags),
        lags,
        pixel_size_A,
    )


def independent_windows(starts: np.ndarray, lag_window: np.ndarray) -> float:
    """Return how many independent windows give as good an average as windows at ``starts`` along one axis.

    For white noise, the powers of two windows correlate as the square of the lag window at their distance (Welch 1967).
    """
    apart = np.abs(starts[:, None] - starts[None, :])
    share = np.where(apart < len(lag_window), lag_window[np.minimum(apart, len(lag_window) - 1)], 0.0)
    return float(len(starts) ** 2 / (share**2).sum())


def _starts(length: int, window: int, overlap: float, border: int) -> np.ndarray:
    stride = max(1, round(window * (1.0 - overlap)))
    return np.arange(0, length - window + 1, stride)[border : None if border == 0 else -border]


def _taper(window: int, fraction: float) -> np.ndarray:
    width = max(1, round(fraction * window))
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(width) + 0.5) / width)
    return np.concatenate([ramp, np.ones(window - 2 * width), ramp[::-1]]).astype(np.float32)


class _PlaneRemover:
    """Subtracts the least-squares plane of a square window. Its centred axes are orthogonal to each other and to 1."""

    def __init__(self, window: int) -> None:
        axis = np.arange(window) - 0.5 * (window - 1)
        self.axis = axis.astype(np.float32)
        self.norm = float(window * (axis**2).sum())

    def __call__(self, tile: np.ndarray) -> np.ndarray:
        rows, columns = tile.sum(axis=1, dtype=np.float64), tile.sum(axis=0, dtype=np.float64)
        slope_y, slope_x = (float((s * self.axis).sum()) / self.norm for s in (rows, columns))
        level = np.float32(rows.sum() / tile.size)
        plane_y, plane_x = np.float32(slope_y) * self.axis + level, np.float32(slope_x) * self.axis
        flat: np.ndarray = tile - plane_y[:, None]
        flat -= plane_x[None, :]
        return flat


def _local_cells(window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell of each pixel of the half plane (flat; the last number means none), and the pixels of each cell."""
    ky, kx = np.fft.fftfreq(window)[:, None], np.arange(window // 2 + 1)[None, :] / window
    k = np.hypot(ky, kx)
    low, high = _LOCAL_BAND
    ring = ((k - low) / (high - low) * _LOCAL_RADII).astype(int)
    sector = (np.arctan2(ky, kx) % np.pi / np.pi * _LOCAL_SECTORS).astype(int) % _LOCAL_SECTORS
    inside = (k >= low) & (k < high) & (np.minimum(np.abs(ky), kx) * window > 2)
    cell = np.where(inside, ring * _LOCAL_SECTORS + sector, _LOCAL_RADII * _LOCAL_SECTORS).ravel()
    count = np.bincount(cell, minlength=_LOCAL_RADII * _LOCAL_SECTORS + 1)[:-1]
    used = np.flatnonzero(count)
    renumbered = np.full(len(count) + 1, len(used))
    renumbered[used] = np.arange(len(used))
    return renumbered[cell], count[used].astype(np.float64)
