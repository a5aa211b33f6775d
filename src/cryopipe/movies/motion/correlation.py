"""Correlation of movie frames: reduced, whitened spectra and the shift between every two of them.

The filter and the all-pairs scheme are FlexAlign's (Střelák et al. 2020, doi:10.3390/electronics9061040). Unlike there,
the spectra are whitened, and the maximum is a paraboloid peak on a grid refined around it (the centre of mass of
3 x 3 pixels is biased towards the grid).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.fft import prev_fast_len

#: A Gaussian exp(-k²/2σ²) with the value 1/2 at 1/d has σ = _HALF_WIDTH / d.
_HALF_WIDTH = 0.8493218
#: Frequencies beyond this multiple of 1/d weigh less than 2e-4 in the product of two filtered spectra.
_CUT = 2.5
#: The Nyquist frequency after binning over the last one kept: right at it, folded noise costs 1.5 % of the accuracy.
_ROOM = 1.2
#: Coarser structure is as often illumination, fixed to the camera, as specimen, and would pull shifts to zero.
HIGH_PASS_A, HIGH_PASS_PX = 600.0, 2.0
_RING_PX = 4.0


@dataclass(frozen=True)
class CorrelationGrid:
    """How frames are reduced for correlation.

    Attributes
    ----------
    shape : tuple of int
        Frame (y, x) in pixels.
    pixel_size_A : float
        Of the frame.
    resolution_A : float
        Resolution at which the low-pass filter is 1/2.
    block : int
        Real-space binning before the Fourier transform.
    ky, kx : ndarray
        Signed frequencies kept, 1/Å; kx is never negative.
    weight : ndarray ``[ky, kx]`` float32
        Filter of one frame; columns that represent a Friedel pair carry a factor √2.
    ring : ndarray ``[ky, kx]`` int32
        Ring of every frequency, for radial averages.
    """

    shape: tuple[int, int]
    pixel_size_A: float
    resolution_A: float
    block: int
    ky: np.ndarray
    kx: np.ndarray
    weight: np.ndarray
    ring: np.ndarray


def correlation_grid(shape: tuple[int, int], pixel_size_A: float, resolution_A: float) -> CorrelationGrid:
    """Choose binning, frequencies and filter for frames of ``shape`` (y, x) and a resolution."""
    resolution = max(resolution_A, 2.5 * pixel_size_A)
    block = max(1, int(resolution / (2.0 * _CUT * _ROOM) / pixel_size_A))
    ny, nx = (prev_fast_len(n // block, True) for n in shape)
    step = block * pixel_size_A
    cut = min(_CUT / resolution, 0.5 / step)
    all_ky, all_kx = np.fft.fftfreq(ny, step), np.fft.rfftfreq(nx, step)
    ky, kx = all_ky[np.abs(all_ky) <= cut], all_kx[all_kx <= cut]
    squared = ky[:, None] ** 2 + kx[None, :] ** 2
    low_pass = np.exp(-0.5 * squared * (resolution / _HALF_WIDTH) ** 2)
    pixels = (ky[:, None] * ny * step) ** 2 + (kx[None, :] * nx * step) ** 2
    high_pass = 1.0 - np.exp(-0.5 * np.minimum(pixels / HIGH_PASS_PX**2, squared * HIGH_PASS_A**2))
    friedel = np.where(kx > 0, np.sqrt(2.0), 1.0)
    weight = (low_pass * high_pass * friedel).astype(np.float32)
    ring = np.rint(np.sqrt(pixels) / _RING_PX).astype(np.int32)
    return CorrelationGrid(shape, pixel_size_A, resolution, block, ky, kx, weight, ring)


def correlation_spectrum(frame: np.ndarray, grid: CorrelationGrid, *, threads: int = 1) -> np.ndarray:
    """Return the cropped spectrum of a frame [y, x]: complex64 ``[ky, kx]``, not filtered."""
    b = grid.block
    ny, nx = (prev_fast_len(n // b, True) for n in grid.shape)
    tapered = binned(frame[: ny * b, : nx * b], b)
    tapered -= tapered.mean(dtype=np.float64).astype(np.float32)
    # The step between opposite edges does not move with the specimen; it would put a cross through zero shift.
    tapered *= taper(ny)[:, None]
    tapered *= taper(nx)
    spectrum = scipy.fft.rfft2(tapered, workers=threads)
    keep_y = np.abs(np.fft.fftfreq(ny, b * grid.pixel_size_A)) <= np.abs(grid.ky).max()
    cropped: np.ndarray = spectrum[keep_y, : len(grid.kx)].astype(np.complex64)
    return cropped


def binned(frame: np.ndarray, block: int) -> np.ndarray:
    """Return sums [y // block, x // block] float32 over ``block`` x ``block`` pixels of ``frame`` [y, x]."""
    ny, nx = (length // block for length in frame.shape)
    # rows first: these additions are contiguous, and they leave fewer values for the strided additions along x
    rows = frame[0 : ny * block : block].astype(np.float32)
    for i in range(1, block):
        rows += frame[i : ny * block : block]
    columns = rows[:, 0 : nx * block : block].copy()
    for i in range(1, block):
        columns += rows[:, i : nx * block : block]
    return columns


def taper(n: int) -> np.ndarray:
    """Return a window [n] that rises from 0 to 1 over the outer sixteenth at both ends, float32."""
    width = max(1, n // 16)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(width) + 0.5) / width)
    return np.concatenate([ramp, np.ones(n - 2 * width), ramp[::-1]]).astype(np.float32)


def whitened(spectra: Sequence[np.ndarray], grid: CorrelationGrid) -> list[np.ndarray]:
    """Return the spectra ``[ky, kx]``, divided by the radial root mean square of all frames, filtered, with unit power.

    Where signal exceeds noise (coarse structure, ice, carbon edges), a stronger signal does not determine the shift any
    better. Without whitening it would hide the narrow peak of everything else under a broad hill.
    """
    counts = np.maximum(np.bincount(grid.ring.ravel()), 1)
    power = sum(np.bincount(grid.ring.ravel(), (s.real**2 + s.imag**2).ravel()) for s in spectra)
    rms = np.sqrt(np.asarray(power) / counts / len(spectra))
    factor = (grid.weight / np.maximum(rms, 1e-30)[grid.ring]).astype(np.float32)
    result = []
    for spectrum in spectra:
        filtered = spectrum * factor
        norm = float(np.sqrt(np.vdot(filtered, filtered).real))
        result.append((filtered / np.float32(max(norm, 1e-30))).astype(np.complex64))
    return result


def correlation_peak(
    product: np.ndarray, rows: np.ndarray, columns: np.ndarray, window: np.ndarray, grid: CorrelationGrid
) -> tuple[float, float, bool, float]:
    """Find the maximum of a correlation inside a square window of shifts.

    Parameters
    ----------
    product : ndarray ``[ky, kx]`` complex64
        Spectrum of the correlation: one spectrum times the conjugate of another.
    rows : ndarray ``[w, ky]`` complex64
        exp(2πi y k) for the shifts y of the window: the inverse transform along y.
    columns : ndarray ``[kx, w]`` complex64
        exp(2πi k x) for the same shifts along x.
    window : ndarray ``[w]``
        Shifts that are tried along each axis, Å, equally spaced and ascending.
    grid : CorrelationGrid
        Frequencies of the spectra.

    Returns
    -------
    x, y : float
        Position of the maximum, Å, on a grid refined around it.
    inside : bool
        False where the maximum lies on the border of the window and thus need not be a peak.
    height : float
        The largest value on the grid.
    """
    coarse = (rows @ (product @ columns)).real
    iy, ix = np.unravel_index(int(coarse.argmax()), coarse.shape)
    last = len(window) - 1
    if iy in (0, last) or ix in (0, last):
        return float(window[ix]), float(window[iy]), False, float(coarse[iy, ix])
    step = window[1] - window[0]
    dy, dx = paraboloid_peak(coarse[iy - 1 : iy + 2, ix - 1 : ix + 2])
    y, x = window[iy] + dy * step, window[ix] + dx * step
    # The peak of a low-passed correlation is broad: on a grid three times finer a paraboloid fits it to 1e-3 of a step.
    fine = step / 3.0 * np.arange(-1, 2)
    columns = np.exp(2j * np.pi * grid.kx[:, None] * (x + fine)).astype(np.complex64)
    rows = np.exp(2j * np.pi * (y + fine)[:, None] * grid.ky).astype(np.complex64)
    dy, dx = paraboloid_peak((rows @ (product @ columns)).real)
    return float(x + dx * step / 3.0), float(y + dy * step / 3.0), True, float(coarse[iy, ix])


def paraboloid_peak(values: np.ndarray) -> tuple[float, float]:
    """Return the maximum (dy, dx) of the paraboloid fitted to 3 x 3 ``values``, within ±1 of the centre."""
    v = values.astype(np.float64)
    gx = (v[:, 2] - v[:, 0]).sum() / 6.0
    gy = (v[2] - v[0]).sum() / 6.0
    hxx = (v[:, 0] - 2 * v[:, 1] + v[:, 2]).sum() / 3.0
    hyy = (v[0] - 2 * v[1] + v[2]).sum() / 3.0
    hxy = (v[0, 0] + v[2, 2] - v[0, 2] - v[2, 0]) / 4.0
    determinant = hxx * hyy - hxy**2
    if determinant <= 0 or hxx >= 0:
        return 0.0, 0.0
    dx = (hxy * gy - hyy * gx) / determinant
    dy = (hxy * gx - hxx * gy) / determinant
    return float(np.clip(dy, -1, 1)), float(np.clip(dx, -1, 1))
