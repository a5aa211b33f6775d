"""Averages of warped frames: plain, and dose-weighted with the noise power restored, in one pass over the frames.

The exposure filter of a frame acts on its *warped* image, and does not commute with a warp that differs from place to
place. Frame by frame it would cost a Fourier transform of every warped frame. But the filters of all frames,
exp(-N_i / 2 N_e(k)), are smooth in exposure and frequency, so that half a dozen functions of the frame number span
them to 1e-4 (a singular value decomposition). The frames are therefore added up in real space once for each of these
functions, and the few sums are transformed at the end.

Frames are interpolated by cubic B-splines. Their prefilter, a sharpening over a pixel or two, is applied to the sums
instead of every frame. This is allowed because the warp stretches a frame, and so the filter's response, by at most 1 %
(8 px over 1000 px). Interpolation takes power from high frequencies. The shifts determine the mean noise power that it
leaves, and the averages are divided by its root. Beyond its borders a frame contributes its mean: nothing wraps around.
"""

from __future__ import annotations

import numpy as np
import scipy.fft

from cryopipe.kernels.warp import node_count, spline_coefficients, warp_accumulate
from cryopipe.movies.motion.dose_weighting import frame_weight

#: Pixels between the nodes of the shift field; linear interpolation of an 8 px bend over 2000 px errs by < 3e-3 px.
SPACING = 16
_BINS = 2048
#: Largest error of the normalised weights of a frequency (root of the sum of squares over frames).
_TOLERANCE = 1e-4
_PHASES = 32
_ROWS = 16
#: Noise power below this is not restored further (if all shifts are half a pixel, nothing of the last frequency is left).
_LEAST_POWER = 0.05


class FrameSums:
    """Accumulates the frames of one movie.

    Parameters
    ----------
    shape : tuple of int
        Frame (y, x).
    pixel_size_A, voltage_kV : float
        Of the movie.
    exposures_e_A2 : ndarray ``[n]`` or None
        Exposure at the end of each frame; None: no weighted average.
    frames : int
        Number n of frames.
    binning : int
        Fourier binning of the results.
    threads : int
        Threads. The result does not depend on it.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_A: float,
        voltage_kV: float,
        exposures_e_A2: np.ndarray | None,
        *,
        frames: int,
        binning: int = 1,
        threads: int = 1,
    ) -> None:
        self.shape = shape
        self.threads = max(threads, 1)
        even = 2 if binning > 1 else 1
        self.new_shape = (shape[0] // binning // even * even, shape[1] // binning // even * even)
        self._ky = np.fft.fftfreq(shape[0])
        self._kx = np.fft.rfftfreq(shape[1])
        plain = np.full((1, frames), 1.0 / frames)
        self._mixing: np.ndarray | None = None
        if exposures_e_A2 is not None:
            # bins are finer than the frequency's reach in the filter: their exposure weights change by < 2e-3
            k = np.arange(_BINS) * (np.sqrt(0.5) / (_BINS - 1)) / pixel_size_A
            filters = np.stack([frame_weight(k, exposure, voltage_kV) for exposure in exposures_e_A2])
            normalised = normalised_filters(filters)
            functions, mixing = separate_filters(normalised)
            self._mixing = mixing / np.sqrt(frames)
            # the noise of a frame counts by the square of its weight
            self._noise_functions, self._noise_mixing = separate_filters(normalised**2)
            radius = np.sqrt(self._ky[:, None] ** 2 + self._kx**2)
            self._bins = (radius * ((_BINS - 1) / np.sqrt(0.5)) + 0.5).astype(np.int16)
            plain = np.concatenate([plain, functions])
        self._weights = plain.astype(np.float32)
        self._sums = np.zeros((len(plain), *shape), dtype=np.float32)
        self._phases = np.zeros((frames, _PHASES, _PHASES))
        self._added, self._finished = 0, False

    def add(self, frame: np.ndarray, shifts: np.ndarray) -> None:
        """Add the next frame [y, x] float32.

        ``shifts`` are to be applied to it: (x, y) [2] everywhere, or [2, gy, gx] at nodes `SPACING` pixels apart.
        """
        if self._finished:
            raise ValueError("the averages have been made, so no further frame can be added to these sums.")
        field = np.asarray(shifts, dtype=np.float32)
        if field.ndim == 1:
            nodes = tuple(node_count(length, SPACING) for length in self.shape)
            field = np.broadcast_to(field[:, None, None], (2, *nodes))
        field = np.ascontiguousarray(field)
        fill = float(frame.mean(dtype=np.float64))
        weights = np.ascontiguousarray(self._weights[:, self._added])
        warp_accumulate(frame, field, SPACING, weights, self._sums, fill=fill, threads=self.threads)
        phase = np.rint(field[:, ::4, ::4] * _PHASES).astype(np.int64).reshape(2, -1) % _PHASES
        np.add.at(self._phases[self._added], (phase[1], phase[0]), 1.0 / phase.shape[1])
        self._added += 1

    def average(self) -> np.ndarray:
        """Return the mean of the warped frames [y, x] float32."""
        self._finish()
        return self._image(self._spectrum(0), self._weights[:1].astype(np.float64), None)

    def weighted_average(self) -> np.ndarray:
        """Return Σ q F / √(n Σ q²) [y, x] float32: weighted frequencies with the noise power of the plain mean.

        Raises
        ------
        ValueError
            The sums were made without exposures.
        """
        if self._mixing is None:
            raise ValueError("a weighted average needs the exposures of the frames.")
        self._finish()
        spectrum = np.zeros((len(self._ky), len(self._kx)), dtype=np.complex64)
        mixing = self._mixing.astype(np.float32)
        for r in range(len(mixing)):
            part = self._spectrum(r + 1)
            for rows in self._row_blocks():
                spectrum[rows] += mixing[r][self._bins[rows]] * part[rows]
        spectrum[0, 0] = self._sums[0].sum(dtype=np.float64)  # weight 1 exactly
        return self._image(spectrum, self._noise_functions, self._noise_mixing)

    def _finish(self) -> None:
        """Apply the prefilter of the splines once, to the sums: it commutes with a warp that is as smooth as motion."""
        if not self._finished:
            for image in self._sums:
                spline_coefficients(image, threads=self.threads)
            self._finished = True

    def _row_blocks(self) -> list[slice]:
        """Return blocks of rows of the spectrum that fit a cache."""
        return [slice(y, y + _ROWS) for y in range(0, len(self._ky), _ROWS)]

    def _spectrum(self, index: int) -> np.ndarray:
        spectrum: np.ndarray = scipy.fft.rfft2(self._sums[index], workers=self.threads)
        return spectrum

    def _image(self, spectrum: np.ndarray, functions: np.ndarray, mixing: np.ndarray | None) -> np.ndarray:
        """Restore the noise power that interpolation took, crop the spectrum and transform it back.

        The share of every frame in the noise is ``functionsᵀ mixing``, or ``functions`` at all frequencies.
        """
        shares = np.tensordot(functions, self._phases, axes=1)  # [r, phase y, phase x]
        along_y = np.einsum("yp,rpq->ryq", noise_transfer(self._ky), shares)
        along_x = noise_transfer(self._kx).T
        for rows in self._row_blocks():
            power = np.zeros(spectrum[rows].shape)
            for r, part in enumerate(along_y[:, rows] @ along_x):  # [y, kx]
                power += part if mixing is None else mixing[r][self._bins[rows]] * part
            spectrum[rows] *= (1.0 / np.sqrt(np.maximum(power, _LEAST_POWER))).astype(np.float32)
        ny, nx = self.new_shape
        if self.new_shape != self.shape:
            spectrum = spectrum[np.r_[0 : (ny + 1) // 2, self.shape[0] - ny // 2 : self.shape[0]], : nx // 2 + 1]
        scale = np.float32(np.prod(self.new_shape) / np.prod(self.shape))
        image: np.ndarray = scipy.fft.irfft2(spectrum * scale, s=self.new_shape, workers=self.threads)
        return image.astype(np.float32, copy=False)


def separate_filters(filters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split the filters ``[n, k]`` of n frames into few functions of the frame times functions of the frequency.

    Returns
    -------
    functions : ndarray ``[r, n]``
        Orthonormal; the weights of the frames in r sums.
    mixing : ndarray ``[r, k]``
        Weights of the sums at each frequency: functionsᵀ mixing = filters to 1e-4. Columns of ``filters`` must be of
        order 1.
    """
    left, values, right = np.linalg.svd(filters, full_matrices=False)
    parts = values[:, None] * right
    rest = np.sqrt(np.cumsum((parts**2)[::-1], axis=0)[::-1].max(axis=1))
    rank = max(1, int((rest > _TOLERANCE).sum()))
    return left[:, :rank].T.copy(), parts[:rank]


def normalised_filters(filters: np.ndarray) -> np.ndarray:
    """Return q / √(Σ q²) over the frames of filters ``[n, k]``."""
    # at extreme exposures q² may fall below what a float holds, but its ratio to the largest does not
    relative = filters / filters.max(axis=0, keepdims=True)
    result: np.ndarray = relative / np.sqrt((relative**2).sum(axis=0))
    return result


def noise_transfer(k: np.ndarray) -> np.ndarray:
    """Return the noise power that cubic-spline interpolation leaves ``[k, phase]`` at ``k`` (1/px), 32 phases per px."""
    f = np.arange(_PHASES) / _PHASES
    g = 1.0 - f
    taps = np.stack([g**3 / 6, 2 / 3 - f**2 * (1 - f / 2), 2 / 3 - g**2 * (1 - g / 2), f**3 / 6])
    waves = np.exp(2j * np.pi * np.asarray(k)[:, None] * np.arange(-1, 3))
    spline = (2.0 + np.cos(2 * np.pi * np.asarray(k))) / 3.0
    power: np.ndarray = np.abs(waves @ taps) ** 2 / spline[:, None] ** 2
    return power
