"""What is taken from the probabilities of a search tile: products at the best states, the sparse posterior, sums."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def best_products(  # type: ignore[no-untyped-def]
    rows, references, norms, group, scale, scale_variance, best, n_shifts, number, first, last,
):  # fmt: skip
    """Compute dot product (in float64), norm and grey scale at each image's best state.

    Parameters
    ----------
    rows : complex64 [groups, group shifts, K]
        Data side of the products: see :func:`cryopipe.kernels.cpu.posteriors.inputs.fill_rows`.
    references : complex64 [states, K]
        Reference side.
    norms : float32 [groups, group, states]
        Norms N.
    group : int
        Images of a group; image i is number ``i % group`` of group ``i // group``.
    scale : float32 [n]
        Mean of the grey scale.
    scale_variance : float
        Its variance.
    best : int [n, 2]
        Best (state, shift) of each image.
    n_shifts : int
        Number of shifts.
    number : float64 [n, 7]
        Receives dot product, norm, mean grey scale and its mean square in columns 3 to 6.
    first, last : int
        Images that this call works on.
    """
    for i in range(first, last):
        state = best[i, 0]
        row = rows[i // group, (i % group) * n_shifts + best[i, 1]]
        dot = 0.0
        for k in range(row.size):
            a = row[k]
            b = references[state, k]
            dot += np.float64(a.real) * b.real + np.float64(a.imag) * b.imag
        norm = np.float64(norms[i // group, i % group, state])
        number[i, 3] = dot
        number[i, 4] = norm
        spread = 1 / (1 + scale_variance * norm)
        number[i, 5] = max((scale[i] + scale_variance * dot) * spread, 0.0)
        number[i, 6] = number[i, 5] ** 2 + scale_variance * spread


@numba.njit(cache=True, nogil=True)
def gather(grouped, group, n_shifts, start, n_states, state, shift, weight, first, last):  # type: ignore[no-untyped-def]
    """Write the states of probability above zero, image by image.

    Parameters
    ----------
    grouped : float32 [groups, group shifts, states]
        Probabilities.
    group : int
        Images of a group; image i is number ``i % group`` of group ``i // group``.
    n_shifts, n_states : int
        Number of shifts and of states.
    start : int [n]
        Where the entries of each image begin.
    state, shift, weight : array [entries]
        Receive state, shift and probability.
    first, last : int
        Images that this call works on.
    """
    for i in range(first, last):
        at = start[i]
        scores = grouped[i // group, (i % group) * n_shifts : (i % group + 1) * n_shifts]
        for s in range(n_shifts):
            for o in range(n_states):
                p = scores[s, o]
                if p > 0:
                    state[at] = o
                    shift[at] = s
                    weight[at] = p
                    at += 1


@numba.njit(cache=True, nogil=True)
def apply_scale(scores, marginal, n_shifts, number):  # type: ignore[no-untyped-def]
    """Multiply a group's probabilities by the images' grey scales, the marginal ones by their squares.

    Parameters
    ----------
    scores : float32 [group shifts, states]
        Probabilities of a group.
    marginal : float32 [group, states]
        The same, summed over the shifts.
    n_shifts : int
        Number of shifts.
    number : float64 [group, 7]
        Grey scale and its mean square in columns 5 and 6.
    """
    for i in range(number.shape[0]):
        if number[i, 5] != 1 or number[i, 6] != 1:
            scores[i * n_shifts : (i + 1) * n_shifts] *= np.float32(number[i, 5])
            marginal[i] *= np.float32(number[i, 6])


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def add_sparse(  # type: ignore[no-untyped-def]
    rows, information, image, shift, weight, order, first, n_shifts, number, numerator, weights, begin, end,
):  # fmt: skip
    """Add the listed (image, shift) rows of a group to their states ``begin`` to ``end``, in image order.

    Parameters
    ----------
    rows, information : complex64 [group shifts, K], float32 [group, K]
        Data side of a group: see :func:`cryopipe.kernels.cpu.posteriors.inputs.fill_rows`.
    image, shift, weight : array [entries]
        Image, shift and probability of each entry.
    order, first : int [entries], [states + 1]
        Entries in the order of their states, and where those of a state begin.
    n_shifts : int
        Number of shifts.
    number : float64 [group, 7]
        Grey scale and its mean square in columns 5 and 6.
    numerator, weights : complex64 and float32 [states, K]
        Receive the sums.
    begin, end : int
        States that this call works on.
    """
    for o in range(begin, end):
        for e in range(first[o], first[o + 1]):
            entry = order[e]
            i = image[entry]
            p = weight[entry] * np.float32(number[i, 5])
            q = weight[entry] * np.float32(number[i, 6])
            row = rows[i * n_shifts + shift[entry]]
            for k in range(row.size):
                numerator[o, k] += row[k] * p
                weights[o, k] += information[i, k] * q
