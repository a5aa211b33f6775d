"""Loops over the listed states of an adaptive search: scores, posterior, survivors.

Each state's score is one fixed loop of its own, so it has the same bits in whatever company it is computed.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from cryopipe.kernels.cpu.threads import in_parts

_SUMS = {"nnan", "ninf", "nsz", "contract", "reassoc"}


def score_states(*arguments: Any) -> None:
    """Fill the log-likelihoods of the states whose slice is at hand; the arguments are those of ``_score_states``."""
    in_parts(_score_states, len(arguments[0]), *arguments)


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def _score_states(  # type: ignore[no-untyped-def]
    first, last, values, ctf, inverse_variance, noise_group, scale, kx, ky, box, slices, first_slice, start, slot,
    state_start, squares, centres, base, scores,
):  # fmt: skip
    """Work through the images first to last, and their states whose slice lies among ``slices``.

    Parameters
    ----------
    values, ctf : [n, >= K]
        Data of n images.
    inverse_variance, noise_group : float32 [g, >= K], int64 [n]
    scale : float32 [n]
    slices : complex64 [u, K]
        Slices number ``first_slice`` and following of all that are listed.
    start, slot : int64 [n + 1], int64 [cells]
        Image i has the slices ``slot[start[i]:start[i + 1]]``, ascending.
    state_start, squares : int64 [cells + 1], int32 [states]
        Each cell's shifts, as rows of ``centres``.
    centres, base : float64 [l, 2], float64 [n, 2]
        Shifts (x, y) in px, and each image's own, which comes on top.
    scores : float32 [states]
    """
    n_pixels = kx.size
    radius = 0
    for k in range(n_pixels):
        radius = max(radius, max(kx[k], abs(ky[k])))
    for i in range(first, last):
        begin = start[i] + np.searchsorted(slot[start[i] : start[i + 1]], first_slice)
        end = start[i] + np.searchsorted(slot[start[i] : start[i + 1]], first_slice + slices.shape[0])
        if begin == end:
            continue
        place = np.full(centres.shape[0], -1, np.int32)
        used = 0
        for state in range(state_start[begin], state_start[end]):
            if place[squares[state]] < 0:
                place[squares[state]] = used
                used += 1
        rows = np.empty((used, 2 * n_pixels), np.float32)
        known = np.empty(2 * n_pixels, np.float32)
        along_x = np.empty(radius + 1, np.complex64)
        along_y = np.empty(2 * radius + 1, np.complex64)
        inverse = inverse_variance[noise_group[i]]
        for k in range(n_pixels):
            known[2 * k] = np.float32(0.5) * (scale[i] * ctf[i, k]) ** 2 * inverse[k]
            known[2 * k + 1] = known[2 * k]
        for square in range(centres.shape[0]):
            if place[square] < 0:
                continue
            row = rows[place[square]]
            for k in range(radius + 1):
                angle = -2 * np.pi * k * (base[i, 0] + centres[square, 0]) / box
                along_x[k] = np.complex64(complex(np.cos(angle), np.sin(angle)))
            for k in range(-radius, radius + 1):
                angle = -2 * np.pi * k * (base[i, 1] + centres[square, 1]) / box
                along_y[k + radius] = np.complex64(complex(np.cos(angle), np.sin(angle)))
            for k in range(n_pixels):
                factor = scale[i] * ctf[i, k] * inverse[k]
                moved = values[i, k] * factor * (along_x[kx[k]] * along_y[ky[k] + radius])
                row[2 * k] = moved.real
                row[2 * k + 1] = moved.imag
        for cell in range(begin, end):
            slice_ = slices[slot[cell] - first_slice].view(np.float32)
            norm = np.float32(0)
            for k in range(2 * n_pixels):
                norm += known[k] * slice_[k] * slice_[k]
            final = state_start[cell + 1] - 1
            # four at a time: the slice is read once for four shifts (the last four may repeat one)
            for four in range(state_start[cell], final + 1, 4):
                a = rows[place[squares[four]]]
                b = rows[place[squares[min(four + 1, final)]]]
                c = rows[place[squares[min(four + 2, final)]]]
                d = rows[place[squares[min(four + 3, final)]]]
                in_a = np.float32(0)
                in_b = np.float32(0)
                in_c = np.float32(0)
                in_d = np.float32(0)
                for k in range(2 * n_pixels):
                    value = slice_[k]
                    in_a += value * a[k]
                    in_b += value * b[k]
                    in_c += value * c[k]
                    in_d += value * d[k]
                scores[min(four + 3, final)] = in_d - norm
                scores[min(four + 2, final)] = in_c - norm
                scores[min(four + 1, final)] = in_b - norm
                scores[four] = in_a - norm


@numba.njit(cache=True, parallel=True, nogil=True)
def describe(scores, start, state_start, squares, cell_prior, square_prior, number, best):  # type: ignore[no-untyped-def]
    """Describe each image's posterior over its states.

    ``number`` columns: log evidence, maximal probability, effective number of states, log-likelihood at the best state.
    ``best`` columns: the best state's cell and its state (places in the lists).
    """
    for i in numba.prange(start.size - 1):
        highest = -np.inf
        for cell in range(start[i], start[i + 1]):
            for state in range(state_start[cell], state_start[cell + 1]):
                value = scores[state] + cell_prior[cell] + square_prior[squares[state]]
                if value > highest:
                    highest = value
                    best[i, 0] = cell
                    best[i, 1] = state
        total = 0.0
        spread = 0.0
        for cell in range(start[i], start[i + 1]):
            for state in range(state_start[cell], state_start[cell + 1]):
                depth = highest - (scores[state] + cell_prior[cell] + square_prior[squares[state]])
                if depth < 30:
                    p = np.exp(-depth)
                    total += p
                    spread += depth * p
        number[i, 0] = highest + np.log(total)
        number[i, 1] = 1 / total
        number[i, 2] = np.exp(np.log(total) + spread / total)
        number[i, 3] = scores[best[i, 1]]


@numba.njit(cache=True, parallel=True, nogil=True)
def best_of_cells(  # type: ignore[no-untyped-def]
    scores, state_start, squares, cell_prior, square_prior, value, square,
):  # fmt: skip
    """Fill each cell's largest log posterior and the square where it has it."""
    for cell in numba.prange(state_start.size - 1):
        value[cell] = -np.inf
        for state in range(state_start[cell], state_start[cell + 1]):
            here = scores[state] + cell_prior[cell] + square_prior[squares[state]]
            if here > value[cell]:
                value[cell] = here
                square[cell] = squares[state]


@numba.njit(cache=True, parallel=True, nogil=True)
def dense_evidence(scores, cell_prior, square_prior, number, best):  # type: ignore[no-untyped-def]
    """Fill log evidence (``number[:, 0]``) and best (square, cell) of dense scores [n, squares, cells]."""
    for i in numba.prange(scores.shape[0]):
        highest = -np.inf
        for s in range(scores.shape[1]):
            for o in range(scores.shape[2]):
                value = scores[i, s, o] + cell_prior[o] + square_prior[s]
                if value > highest:
                    highest = value
                    best[i, 0] = s
                    best[i, 1] = o
        total = 0.0
        for s in range(scores.shape[1]):
            for o in range(scores.shape[2]):
                depth = highest - (scores[i, s, o] + cell_prior[o] + square_prior[s])
                if depth < 30:
                    total += np.exp(-depth)
        number[i, 0] = highest + np.log(total)


@numba.njit(cache=True, parallel=True, nogil=True)
def count_dense(scores, threshold, count):  # type: ignore[no-untyped-def]
    """Fill ``count`` [n, cells] with the number of squares that reach the image's threshold."""
    for i in numba.prange(scores.shape[0]):
        for s in range(scores.shape[1]):
            for o in range(scores.shape[2]):
                count[i, o] += scores[i, s, o] >= threshold[i]


@numba.njit(cache=True, parallel=True, nogil=True)
def list_dense(scores, threshold, first, squares):  # type: ignore[no-untyped-def]
    """List the squares that reach the threshold, cell by cell; ``first`` [n, cells] is where a cell's begin."""
    for i in numba.prange(scores.shape[0]):
        at = first[i].copy()
        for s in range(scores.shape[1]):
            for o in range(scores.shape[2]):
                if scores[i, s, o] >= threshold[i]:
                    squares[at[o]] = s
                    at[o] += 1
