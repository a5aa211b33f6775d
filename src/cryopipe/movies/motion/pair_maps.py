"""Correlations of all pairs of frames as small maps over the shift, at the cost of a matrix product.

At shifts of a few tens of Å, the correlation of two frames needs their cross spectrum only as averages over blocks of
frequencies. The blocks are some hundredths of 1/Å wide. The averages for all pairs at once are products of the matrix
[frames, frequencies of a block] with its own conjugate transpose. Each pair then has a spectrum of some thousand numbers,
and the transform of this spectrum over the range of shifts is the map. Values are in standard deviations of the noise:
frames that share nothing have maps of deviation 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryopipe.movies.motion.correlation import CorrelationGrid, paraboloid_peak

#: Largest change of the phase, in radians, over half the width of a block of frequencies at the end of the range. There the
#: map is reduced by 6 %, to sin(0.6)/0.6, and is divided by this factor.
_TURN = 0.6
#: Steps of a map over the resolution: the peak of a filtered correlation is about one resolution wide.
STEPS = 4.0


@dataclass(frozen=True)
class PairMaps:
    """Correlation maps of frame pairs.

    Attributes
    ----------
    pairs : int64 ``[p, 2]``
        Frames (i, j), i < j.
    maps : float32 ``[p, w, w]``
        Correlation at the shift (y, x) of frame j minus that of frame i, in standard deviations of the noise.
    step_A : float
        Distance of two neighbouring places of a map. The middle place is zero shift.
    """

    pairs: np.ndarray
    maps: np.ndarray
    step_A: float


def pair_maps(spectra: Sequence[np.ndarray], grid: CorrelationGrid, range_A: float) -> PairMaps:
    """Correlate every two frames at shifts up to ``range_A`` along x and y.

    Parameters
    ----------
    spectra : sequence of ndarray ``[ky, kx]`` complex64
        Of :func:`cryopipe.movies.motion.correlation.whitened`.
    grid : CorrelationGrid
        Their frequencies.
    range_A : float
        Half side of the maps.
    """
    n = len(spectra)
    pairs = np.array(list(itertools.combinations(range(n), 2)), dtype=np.int64).reshape(-1, 2)
    step = grid.resolution_A / STEPS
    window = step * np.arange(-max(2, int(np.ceil(range_A / step))), max(2, int(np.ceil(range_A / step))) + 1)
    order = np.argsort(grid.ky)
    rows, row_k, row_loss = _blocks(grid.ky[order], window)
    columns, column_k, column_loss = _blocks(grid.kx, window)
    width = len(column_k) * columns
    gram = np.zeros((len(pairs), len(row_k), len(column_k)), dtype=np.complex64)
    filled = np.zeros((n, rows, width), dtype=np.complex64)
    total = 0.0
    for b in range(len(row_k)):
        taken = order[b * rows : (b + 1) * rows]
        filled[:, len(taken) :] = 0
        for t, spectrum in enumerate(spectra):
            filled[t, : len(taken), : spectrum.shape[1]] = spectrum[taken]
        total += float((np.mean(filled.real**2 + filled.imag**2, axis=0) ** 2).sum())
        parts = filled.reshape(n, rows, len(column_k), columns).transpose(2, 0, 1, 3).reshape(len(column_k), n, -1)
        product = parts @ parts.conj().transpose(0, 2, 1)  # [columns of blocks, n, n]
        gram[:, b] = product[:, pairs[:, 0], pairs[:, 1]].T
    turn_x = np.exp(2j * np.pi * np.outer(column_k, window)).astype(np.complex64)
    turn_y = np.exp(2j * np.pi * np.outer(window, row_k)).astype(np.complex64)
    loss = np.outer(row_loss, column_loss)
    deviation = max(np.sqrt(0.5 * total), 1e-30)
    maps = np.empty((len(pairs), len(window), len(window)), dtype=np.float32)
    for p, spectrum in enumerate(gram):
        maps[p] = (turn_y @ (spectrum @ turn_x)).real
    maps /= (loss * deviation).astype(np.float32)
    return PairMaps(pairs, maps, step)


def _blocks(frequencies: np.ndarray, window: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Return the number of ascending frequencies in a block, the middles of the blocks, and the loss of the map at each shift."""
    spacing = frequencies[1] - frequencies[0] if len(frequencies) > 1 else 1.0
    size = max(1, int(_TURN / (np.pi * window[-1] * spacing)))
    count = -(-len(frequencies) // size)
    middles = frequencies[0] + spacing * (size * np.arange(count) + 0.5 * (size - 1))
    return size, middles, np.sinc(window * spacing * size)


def map_peaks(maps: PairMaps) -> tuple[np.ndarray, np.ndarray]:
    """Return the highest place of every map, (x, y) ``[p, 2]`` in Å, and whether it is inside the map, not at its border."""
    w = maps.maps.shape[1]
    at = maps.maps.reshape(len(maps.maps), -1).argmax(axis=1)
    y, x = at // w, at % w
    inside = (np.minimum(y, x) > 0) & (np.maximum(y, x) < w - 1)
    places = np.stack([x, y], axis=1).astype(np.float64)
    for p in np.flatnonzero(inside):
        dy, dx = paraboloid_peak(maps.maps[p, y[p] - 1 : y[p] + 2, x[p] - 1 : x[p] + 2])
        places[p] += dx, dy
    return (places - w // 2) * maps.step_A, inside
