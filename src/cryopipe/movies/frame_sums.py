"""Sums of shifted frames in Fourier space: plain, and dose-weighted with the noise power restored.

A sub-pixel shift is a phase ramp, so that no interpolation damps high frequencies. Shifts are periodic: content that
leaves on one side enters on the other, in a border as wide as the motion, as in RELION and FlexAlign.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import scipy.fft

from cryopipe.movies.dose_weighting import frame_weight

_BINS = 4096


@numba.njit(nogil=True, cache=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def _accumulate(
    spectrum: np.ndarray,
    ramp_y: np.ndarray,
    ramp_x: np.ndarray,
    weight: np.ndarray,
    bins: np.ndarray,
    plain: np.ndarray,
    weighted: np.ndarray,
    first: int,
    last: int,
) -> None:
    """Add rows first..last of the ramped spectrum to ``plain`` and, weighted, to ``weighted`` (if not empty)."""
    dose = weighted.shape[0] > 0
    for y in range(first, last):
        for x in range(spectrum.shape[1]):
            value = spectrum[y, x] * (ramp_y[y] * ramp_x[x])
            plain[y, x] += value
            if dose:
                weighted[y, x] += weight[bins[y, x]] * value


class FrameSums:
    """Accumulates the frames of one movie.

    Parameters
    ----------
    shape : tuple of int
        Frame (y, x).
    pixel_size_A, voltage_kV : float
        Of the movie.
    binning : int
        Fourier binning of the results.
    dose : bool
        Whether the dose-weighted sum is made.
    workers : int
        Threads. The result does not depend on it.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_A: float,
        voltage_kV: float,
        *,
        binning: int = 1,
        dose: bool = True,
        workers: int = 1,
    ) -> None:
        self.shape = shape
        self.voltage_kV = voltage_kV
        self.workers = max(workers, 1)
        self.frames = 0
        even = 2 if binning > 1 else 1
        self.new_shape = (shape[0] // binning // even * even, shape[1] // binning // even * even)
        ny, nx = self.new_shape
        self._rows = np.r_[0 : (ny + 1) // 2, shape[0] - ny // 2 : shape[0]] if binning > 1 else None
        self._ky = np.fft.fftfreq(shape[0]) if self._rows is None else np.fft.fftfreq(shape[0])[self._rows]
        self._kx = np.fft.rfftfreq(shape[1])[: nx // 2 + 1]
        self._plain = np.zeros((ny, nx // 2 + 1), dtype=np.complex64)
        self._weighted = np.zeros(self._plain.shape if dose else (0, 0), dtype=np.complex64)
        self._squares = np.zeros(_BINS)
        # Frequencies up to the corner, in bins of 1/5800 of 1/px: the weight changes by less than 1e-3 within one.
        radius = np.sqrt(self._ky[:, None] ** 2 + self._kx[None, :] ** 2)
        self._bins = (
            np.rint(radius * ((_BINS - 1) / np.sqrt(0.5))).astype(np.uint16) if dose else np.zeros((0, 0), np.uint16)
        )
        self._bin_k = np.arange(_BINS) * (np.sqrt(0.5) / (_BINS - 1)) / pixel_size_A

    def add(self, frame: np.ndarray, shift_xy_px: np.ndarray, exposure_e_A2: float | None) -> None:
        """Add a corrected frame [y, x] moved by ``shift_xy_px``; ``exposure_e_A2`` is the exposure at its end."""
        spectrum = scipy.fft.rfft2(frame, workers=self.workers)
        if self._rows is not None:
            spectrum = spectrum[self._rows, : len(self._kx)]
        ramp_y = np.exp(-2j * np.pi * self._ky * shift_xy_px[1]).astype(np.complex64)
        ramp_x = np.exp(-2j * np.pi * self._kx * shift_xy_px[0]).astype(np.complex64)
        exposure = exposure_e_A2
        weight = np.ones(_BINS) if exposure is None else frame_weight(self._bin_k, exposure, self.voltage_kV)
        self._squares += weight**2
        self.frames += 1
        weight32 = weight.astype(np.float32)
        edges = np.linspace(0, len(self._ky), self.workers + 1).astype(int)

        def part(index: int) -> None:
            _accumulate(
                spectrum,
                ramp_y,
                ramp_x,
                weight32,
                self._bins,
                self._plain,
                self._weighted,
                edges[index],
                edges[index + 1],
            )

        if self.workers == 1:
            part(0)
        else:
            with ThreadPoolExecutor(self.workers) as pool:
                list(pool.map(part, range(self.workers)))

    def average(self) -> np.ndarray:
        """Return the mean of the shifted frames [y, x] float32."""
        return self._image(self._plain * np.float32(1.0 / self.frames))

    def weighted_average(self) -> np.ndarray:
        """Return Σ q F / √(n Σ q²) [y, x] float32: frequencies weighted, the noise power as in the mean."""
        norm = np.sqrt(self.frames * np.maximum(self._squares, 1e-30))
        return self._image(self._weighted * (1.0 / norm).astype(np.float32)[self._bins])

    def _image(self, spectrum: np.ndarray) -> np.ndarray:
        scale = np.float32(np.prod(self.new_shape) / np.prod(self.shape))
        image: np.ndarray = scipy.fft.irfft2(spectrum * scale, s=self.new_shape, workers=self.workers)
        return image.astype(np.float32, copy=False)
