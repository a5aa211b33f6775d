"""From scores to probabilities, and what is kept of them."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

REACH = 30.0
"""States more than 30 nats below the best (e^-30 = 1e-13 each) count as impossible."""
BIN_SHIFT = 19
"""A probability's bin is its float32 bit pattern without the last 19 bits: 16 bins an octave, so significance is "
"decided to 4 %."""
TOP_BIN = 127 << (23 - BIN_SHIFT)
BINS = 44 << (23 - BIN_SHIFT)
"""Bins from 1 down to 2^-44 < e^-30."""
# No infinities or NaN get here (priors are clamped, data are checked), so sums and maxima may run in vector lanes.
_FAST = {"nnan", "ninf", "nsz", "contract", "reassoc"}
_CHUNK = 1024
# Helpers are inlined into their callers: a helper that stays a function exists twice, compiled alone and compiled again
# within its caller, and whether a process just compiled it or read the cache decides which copy runs. With sums in
# vector lanes the two differ in the last bits.


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def posterior(  # type: ignore[no-untyped-def]
    grouped, norms, group, log_state, log_shift, scale, scale_variance, inverse_temperature, mass, number,
    shift_probability, reference_probability, best, kept, candidate_log, candidate, marginals, first, last,
):  # fmt: skip
    """Turn scores into truncated probabilities, in place, and describe them.

    With dot product d and norm N of a state the log-likelihood at grey scale a is a d - ½ a² N; averaged over
    a ~ N(m, v) it is (v d² + 2 m d - m² N) / (2 (1 + v N)) - ½ log(1 + v N).

    Parameters
    ----------
    grouped : float32 [groups, group shifts, states]
        Dot products of images with references.
    norms : float32 [groups, group, states]
        Norms N.
    group : int
        Images of a group; image i is number ``i % group`` of group ``i // group``.
    log_state : float32 [states]
        Logarithm of the prior of each state.
    log_shift : float32 [n, shifts]
        The same of each shift.
    scale : float32 [n]
        Mean m of the grey scale.
    scale_variance, inverse_temperature, mass : float32
        Variance v of the grey scale; factor of the log-likelihood; share of the probability that is kept.
    number : float64 [n, 7]
        Receives log evidence, largest probability and effective number of states in columns 0 to 2.
    shift_probability, reference_probability : float64 [n, shifts], [n, references]
        Receive the marginal probabilities.
    best, kept : int [n, 2], [n]
        Receive the best (state, shift) and the number of states that are kept.
    candidate_log, candidate : float64 [n, c], int32 [n, c, 2]
        Receive the c best orientations, each at its best shift.
    marginals : float32 [groups, group, states] or [0, ...]
        Receive the probabilities summed over the shifts, where they are wanted.
    first, last : int
        Images that this call works on.
    """
    n_shifts = shift_probability.shape[1]
    n_states = log_state.size
    n_references = reference_probability.shape[1]
    per_reference = n_states // n_references
    offset = np.empty(n_states, np.float32)
    linear = np.empty(n_states, np.float32)
    square = np.empty(n_states, np.float32)
    highest = np.empty(n_shifts, np.float32)
    power = np.empty(_CHUNK, np.int32)
    depths = np.empty(_CHUNK, np.float32)
    for i in range(first, last):
        scores = grouped[i // group, (i % group) * n_shifts : (i % group + 1) * n_shifts]
        norm = norms[i // group, i % group]
        mean = scale[i]
        gain = inverse_temperature * mean
        if scale_variance > 0:
            _scale_terms(norm, log_state, mean, scale_variance, inverse_temperature, offset, linear, square)
        else:
            for o in range(n_states):
                offset[o] = log_state[o] - gain * mean * np.float32(0.5) * norm[o]
        top = np.float32(-3e38)
        for s in range(n_shifts):
            if scale_variance > 0:
                for o in range(n_states):
                    scores[s, o] = (square[o] * scores[s, o] + linear[o]) * scores[s, o]
                highest[s] = _log_posterior(scores[s], offset, log_shift[i, s], np.float32(1))
            else:
                highest[s] = _log_posterior(scores[s], offset, log_shift[i, s], gain)
            if highest[s] > top:
                top = highest[s]
                best[i, 1] = s
        row = scores[best[i, 1]]
        for o in range(n_states):
            if row[o] == top:
                best[i, 0] = o
                break
        if candidate.shape[1] > 0:
            _best_orientations(scores, n_states, top, candidate_log[i], candidate[i])
        histogram = np.zeros(BINS + 1)
        total = 0.0
        spread = 0.0
        for s in range(n_shifts):
            if highest[s] < top - np.float32(REACH):
                continue
            mass_here, spread_here = _exponentiate(scores[s, :n_states], top, power, depths, histogram)
            shift_probability[i, s] += mass_here
            total += mass_here
            spread += spread_here
            if n_references > 1:
                _add_by_reference(scores[s], per_reference, reference_probability[i])
        if n_references == 1:
            reference_probability[i, 0] = total
        for s in range(n_shifts):
            shift_probability[i, s] /= total
        for r in range(n_references):
            reference_probability[i, r] /= total
        held = 0.0
        lowest = 0
        while lowest < BINS - 1:
            held += histogram[lowest]
            if held >= mass * total:
                break
            lowest += 1
        bits = np.empty(1, np.int32)
        bits[0] = (TOP_BIN - lowest) << BIN_SHIFT
        least = bits.view(np.float32)[0]
        if marginals.shape[0] > 0:
            marginals[i // group, i % group, :] = 0
        kept[i] = 0
        for s in range(n_shifts):
            if highest[s] < top - np.float32(REACH):
                scores[s, :] = 0
                continue
            kept[i] += _truncate(scores[s], n_states, least, np.float32(1 / held))
            if marginals.shape[0] > 0:
                marginal = marginals[i // group, i % group]
                for o in range(n_states):
                    marginal[o] += scores[s, o]
        number[i, 0] = np.float64(top) + np.log(total)
        number[i, 1] = 1 / total
        number[i, 2] = np.exp(np.log(total) + spread / total)


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def likelihoods(grouped, norms, group, scale, scale_variance, found, first, last):  # type: ignore[no-untyped-def]
    """Fill log-likelihoods [n, shifts, states] from the scores, averaged over the grey scale as in `posterior`.

    Parameters
    ----------
    grouped : float32 [groups, group shifts, states]
        Dot products of images with references.
    norms : float32 [groups, group, states]
        Norms N.
    group : int
        Images of a group; image i is number ``i % group`` of group ``i // group``.
    scale : float32 [n]
        Mean of the grey scale.
    scale_variance : float32
        Its variance.
    found : float32 [n, shifts, states]
        Receives the log-likelihoods.
    first, last : int
        Images that this call works on.
    """
    n_shifts, n_states = found.shape[1:]
    fixed = np.zeros(n_states, np.float32)
    offset = np.empty(n_states, np.float32)
    linear = np.empty(n_states, np.float32)
    square = np.empty(n_states, np.float32)
    for i in range(first, last):
        norm = norms[i // group, i % group]
        _scale_terms(norm, fixed, scale[i], scale_variance, np.float32(1), offset, linear, square)
        for s in range(n_shifts):
            row = grouped[i // group, (i % group) * n_shifts + s]
            for o in range(n_states):
                found[i, s, o] = (square[o] * row[o] + linear[o]) * row[o] + offset[o]


@numba.njit(inline="always", fastmath=_FAST)
def _scale_terms(norm, log_state, mean, variance, beta, offset, linear, square):  # type: ignore[no-untyped-def]
    """Fill the coefficients of 1, d and d² of the log-likelihood averaged over the grey scale."""
    half = np.float32(0.5)
    for o in range(log_state.size):
        damping = np.float32(1) / (np.float32(1) + variance * norm[o])
        square[o] = beta * half * variance * damping
        linear[o] = beta * mean * damping
        offset[o] = log_state[o] + beta * half * (np.log(damping) - mean * mean * norm[o] * damping)


@numba.njit(inline="always", fastmath=_FAST)
def _log_posterior(row, offset, prior, inverse_temperature):  # type: ignore[no-untyped-def]
    highest = np.float32(-3e38)
    for o in range(offset.size):
        value = inverse_temperature * row[o] + (offset[o] + prior)
        row[o] = value
        highest = max(highest, value)
    return highest


@numba.njit(inline="always", fastmath=_FAST)
def _exponentiate(row, top, power, depths, histogram):  # type: ignore[no-untyped-def]
    """Replace logarithms by p = exp(value - top), zero beyond reach, and return Σ p and Σ p depth.

    The histogram receives each p in its bin. The exponential is a power of two times a polynomial on [0, 1) (Chebyshev,
    degree 5: relative error 2e-7 in float32), because a loop with a call to the library's exp is not vectorised.
    """
    total = 0.0
    spread = 0.0
    scale = power.view(np.float32)
    for start in range(0, row.size, power.size):
        part = row[start : start + power.size]
        some: Any = np.float32(0)
        some_spread: Any = np.float32(0)
        for j in range(part.size):
            depth = top - part[j]
            depths[j] = depth
            x = max(depth * np.float32(-1.4426950408889634), np.float32(-60))
            whole = np.floor(x)
            f = x - whole
            power[j] = (np.int32(whole) + np.int32(127)) << np.int32(23)
            p = np.float32(1.89375406e-3) * f + np.float32(8.94959042e-3)
            p = p * f + np.float32(5.58603371e-2)
            p = p * f + np.float32(2.40141818e-1)
            p = p * f + np.float32(6.93154490e-1)
            part[j] = p * f + np.float32(9.99999898e-1)
        for j in range(part.size):
            p = part[j] * scale[j]
            p = p if p > np.float32(1e-13) else np.float32(0)
            p = min(p, np.float32(1))
            part[j] = p
            some += p
            some_spread += p * depths[j]
        bits = part.view(np.int32)
        for j in range(part.size):
            if bits[j] > 0:
                histogram[min(TOP_BIN - (bits[j] >> BIN_SHIFT), BINS)] += part[j]
        total += some
        spread += some_spread
    return total, spread


@numba.njit(inline="always", fastmath=_FAST)
def _add_by_reference(row, per_reference, probability):  # type: ignore[no-untyped-def]
    if per_reference == 1:
        for r in range(probability.size):
            probability[r] += row[r]
        return
    for r in range(probability.size):
        some: Any = np.float32(0)
        for o in range(r * per_reference, (r + 1) * per_reference):
            some += row[o]
        probability[r] += some


@numba.njit(inline="always", fastmath=_FAST)
def _truncate(row, n_states, least, scale):  # type: ignore[no-untyped-def]
    count = 0
    for o in range(n_states):
        keep = row[o] >= least
        count += keep
        row[o] = row[o] * scale if keep else np.float32(0)
    return count


@numba.njit(inline="always", fastmath=_FAST)
def _best_orientations(scores, n_states, top, log_value, candidate):  # type: ignore[no-untyped-def]
    """Keep the best orientations of one image, each at its best shift, by insertion into a short sorted list."""
    value = scores[0, :n_states].copy()
    at = np.zeros(n_states, np.int32)
    for s in range(1, scores.shape[0]):
        row = scores[s]
        for o in range(n_states):
            at[o] = s if row[o] > value[o] else at[o]
            value[o] = max(row[o], value[o])
    wanted = candidate.shape[0]
    filled = 0
    for o in range(n_states):
        depth = np.float64(value[o]) - np.float64(top)
        if filled == wanted and depth <= log_value[wanted - 1]:
            continue
        place = filled if filled < wanted else wanted - 1
        while place > 0 and log_value[place - 1] < depth:
            log_value[place] = log_value[place - 1]
            candidate[place, 0] = candidate[place - 1, 0]
            candidate[place, 1] = candidate[place - 1, 1]
            place -= 1
        log_value[place] = depth
        candidate[place, 0] = o
        candidate[place, 1] = at[o]
        if filled < wanted:
            filled += 1
