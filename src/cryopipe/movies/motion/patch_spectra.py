"""Whitened spectra of patches of a movie, up to the finest detail that frames share. Joint alignment works on them.

Frames arrive binned (`reduced`). A patch is cut from each frame at the whole pixel nearest to its global shift, and
the remainder of the shift is kept with the spectrum. Only half of a disc of the Fourier plane is kept, with 8 bytes per
frequency, patch and frame: 0.6 GB for 50 frames of 3.8k x 3.7k at 0.85 Å/px, whatever the binning of the camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from scipy.fft import prev_fast_len

from cryopipe.movies.motion.correlation import HIGH_PASS_A, HIGH_PASS_PX, binned, taper
from cryopipe.movies.motion.local_alignment import patch_layout

#: Rings of frequencies are 1/RING_A wide: four pixels of the spectrum of a patch of 500 Å.
RING_A = 125.0
#: Spectra take at most this; more frames keep fewer frequencies.
_LARGEST_BYTES = 1.0e9


def reduction(pixel_size_A: float, finest_A: float) -> int:
    """Return the binning factor (1 or more) that brings the Nyquist frequency closest to ``1 / finest_A``."""
    return max(1, round(finest_A / (2.0 * pixel_size_A)))


def reduced(frame: np.ndarray, block: int, dtype: type[np.floating[Any]] = np.float16) -> np.ndarray:
    """Return the frame binned by ``block``: float32 sums, or float16 with mean 0 and deviation 1 (noise hides the rounding)."""
    small = binned(frame, block)
    if dtype is np.float32:
        return small
    small -= small.mean(dtype=np.float64).astype(np.float32)
    deviation = float(small.std())
    small *= np.float32(1.0 / max(deviation, 1e-6))
    return np.clip(small, -1000, 1000, out=small).astype(dtype)


@dataclass(frozen=True)
class PatchSpectra:
    """Spectra of all patches and frames.

    Attributes
    ----------
    values : complex64 ``[p, n, K]``
        Whitened: the mean power of a ring over all patches and frames is 1. Ring 0 is zero.
    offsets_px : ndarray ``[p, n, 2]``
        (x, y) by which a patch must still be moved after the cut to follow the global shifts; unbinned pixels.
    cuts_px : ndarray ``[p, n, 2]``
        (x, y) of its first pixel on the camera.
    centres : tuple of ndarray
        Rows [a] and columns [b] of the patches' centres; p = a b.
    pixel_size_A : float
        Unbinned.
    ky, kx, starts, lengths : ndarray
        Frequencies (1/unbinned px) and their places in K, as :mod:`cryopipe.kernels.coherence` has them.
    ring : int64 ``[K]``
        Ring of a frequency. Ring 0 is not used: it holds coarse structure (as often illumination as specimen) and
        Friedel mates.
    ring_k : ndarray ``[rings]``
        Mean frequency of a ring, 1/Å.
    """

    values: np.ndarray
    offsets_px: np.ndarray
    cuts_px: np.ndarray
    centres: tuple[np.ndarray, np.ndarray]
    pixel_size_A: float
    ky: np.ndarray
    kx: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    ring: np.ndarray
    ring_k: np.ndarray

    @property
    def grid(self) -> tuple[int, int]:
        """Number of patches along (y, x)."""
        return len(self.centres[0]), len(self.centres[1])

    def frequencies(self) -> np.ndarray:
        """Return (kx, ky) ``[2, K]`` of every place, 1/unbinned px."""
        kx = np.concatenate([self.kx[:length] for length in self.lengths])
        return np.stack([kx, np.repeat(self.ky, self.lengths)])

    def lengths_within(self, k_A: float) -> np.ndarray:
        """Return ``lengths`` cut short to frequencies up to ``k_A`` (1/Å)."""
        limit = np.maximum((k_A * self.pixel_size_A) ** 2 - self.ky**2, -1.0)
        columns = np.searchsorted(self.kx, np.sqrt(np.maximum(limit, 0.0)), side="right") * (limit >= 0)
        result: np.ndarray = np.minimum(self.lengths, columns).astype(np.int64)
        return result

    def ring_sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sums of ``values`` [K] over the rings."""
        return np.bincount(self.ring, values, minlength=len(self.ring_k))


def patch_spectra(
    frames: Sequence[np.ndarray],
    block: int,
    shape: tuple[int, int],
    pixel_size_A: float,
    shifts_px: np.ndarray,
    *,
    patch_A: float,
    finest_A: float,
    threads: int = 1,
) -> PatchSpectra:
    """Cut and transform the patches of a movie. A frame that is too small for patches is a single patch.

    Parameters
    ----------
    frames : sequence of ndarray ``[y, x]``
        Of :func:`reduced`.
    block : int
        Their binning.
    shape : tuple of int
        Unbinned frame (y, x).
    pixel_size_A : float
        Unbinned.
    shifts_px : ndarray ``[n, 2]``
        Global shifts (x, y) to apply.
    patch_A : float
        Side of a patch.
    finest_A : float
        Finest detail that is kept.
    threads : int
        Threads. The result does not depend on it.
    """
    layout = patch_layout(shape, pixel_size_A, patch_A, float(np.abs(shifts_px).max()) + block)
    if layout is None:
        tops, lefts, sides = np.zeros(1), np.zeros(1), frames[0].shape
    else:
        # a length with small prime factors, for which Fourier transforms are fast
        tops, lefts, sides = layout[0], layout[1], (prev_fast_len(layout[2] // block, True),) * 2
    n, patches = len(frames), len(tops) * len(lefts)
    finest = max(finest_A, 2.0 * block * pixel_size_A)
    area = sides[0] * sides[1] * (block * pixel_size_A) ** 2
    # half a disc of radius 1/finest holds π/2 area/finest² frequencies
    finest = max(finest, float(np.sqrt(0.5 * np.pi * area * 8.0 * n * patches / _LARGEST_BYTES)))
    all_ky, kx = (f(length, block) for f, length in zip((np.fft.fftfreq, np.fft.rfftfreq), sides, strict=True))
    limit = pixel_size_A / finest
    kx = kx[kx <= limit]
    rows = np.flatnonzero(np.abs(all_ky) <= limit)
    ky = all_ky[rows]
    lengths = np.searchsorted(kx, np.sqrt(np.maximum(limit**2 - ky**2, 0.0)), side="right").astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    columns = sides[1] // 2 + 1
    places = np.concatenate([row * columns + np.arange(length) for row, length in zip(rows, lengths, strict=True)])
    values = np.empty((patches, n, int(lengths.sum())), dtype=np.complex64)
    offsets, cuts = np.empty((patches, n, 2)), np.empty((patches, n, 2))
    window = taper(sides[0])[:, None] * taper(sides[1])[None, :]

    def fill(patch: int) -> None:
        top, left = tops[patch // len(lefts)], lefts[patch % len(lefts)]
        for t, frame in enumerate(frames):
            wanted = (np.array([left, top]) - shifts_px[t]) / block
            room = np.array([frame.shape[1] - sides[1], frame.shape[0] - sides[0]])
            x, y = np.clip(np.rint(wanted), 0, room).astype(int)
            cut = frame[y : y + sides[0], x : x + sides[1]].astype(np.float32)
            cut -= cut.mean()
            cut *= window
            np.take(scipy.fft.rfft2(cut).ravel(), places, out=values[patch, t])
            # a cut at x moves the content by x - wanted less than the global shift demands
            offsets[patch, t] = (np.array([x, y]) - wanted) * block
            cuts[patch, t] = x * block, y * block

    with ThreadPoolExecutor(max(threads, 1)) as pool:
        list(pool.map(fill, range(patches)))
    ring, ring_k = _rings(ky, kx, lengths, pixel_size_A, max(sides) * block)
    middle = tuple(first + 0.5 * side * block - 0.5 for first, side in zip((tops, lefts), sides, strict=True))
    result = PatchSpectra(
        values, offsets, cuts, (middle[0], middle[1]), pixel_size_A, ky, kx, starts, lengths, ring, ring_k
    )
    _whiten(result, threads)
    return result


def _rings(
    ky: np.ndarray, kx: np.ndarray, lengths: np.ndarray, pixel_size_A: float, side_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ring of every place in K and the mean frequency (1/Å) of every ring."""
    x = np.concatenate([kx[:length] for length in lengths])
    y = np.repeat(ky, lengths)
    k = np.hypot(x, y) / pixel_size_A
    ring = np.maximum(np.rint(k * RING_A).astype(np.int64), 1)
    coarse = k < max(1.0 / HIGH_PASS_A, HIGH_PASS_PX / (side_px * pixel_size_A))
    mates = (x == 0) & (y <= 0)
    ring[coarse | mates] = 0
    counts = np.bincount(ring)
    return ring, np.bincount(ring, k) / np.maximum(counts, 1)


def _whiten(patches: PatchSpectra, threads: int) -> None:
    """Divide the spectra by the root of the mean power of their ring, in place; ring 0 becomes zero."""

    def power(spectra: np.ndarray) -> np.ndarray:
        return patches.ring_sums((spectra.real**2 + spectra.imag**2).sum(axis=0, dtype=np.float64))

    def scale(spectra: np.ndarray) -> None:
        spectra *= factor

    with ThreadPoolExecutor(max(threads, 1)) as pool:
        total = np.sum(list(pool.map(power, patches.values)), axis=0)
        counts = np.bincount(patches.ring, minlength=len(patches.ring_k)) * np.prod(patches.values.shape[:2])
        inverse = np.sqrt(counts / np.where(total > 0, total, 1.0)) * (total > 0)
        inverse[0] = 0.0
        factor = inverse[patches.ring].astype(np.float32)
        list(pool.map(scale, patches.values))
