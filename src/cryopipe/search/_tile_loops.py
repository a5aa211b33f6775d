"""The loops of a CPU search tile between its products; they release the GIL and take a range of images each."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from cryopipe.search._tile import BIN_SHIFT, BINS, REACH, TOP_BIN

# No infinities or NaN get here (priors are clamped, data are checked), so sums and maxima may run in vector lanes.
_FAST = {"nnan", "ninf", "nsz", "contract", "reassoc"}
_CHUNK = 1024


@numba.njit(cache=True, nogil=True)
def square(references, power):  # type: ignore[no-untyped-def]
    """Fill ``power`` with |references|²."""
    for o in range(references.shape[0]):
        for k in range(references.shape[1]):
            power[o, k] = references[o, k].real ** 2 + references[o, k].imag ** 2


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def fill_rows(values, ctf, inverse_variance, phases, rows, information, first, last):  # type: ignore[no-untyped-def]
    """Fill the data side of the products: C X e^{..}/σ² for every (image, shift), C²/σ² for every image."""
    n_shifts, n_pixels = phases.shape
    weighted = np.empty(n_pixels, np.complex64)
    for i in range(first, last):
        for k in range(n_pixels):
            factor = ctf[i, k] * inverse_variance[i, k]
            information[i, k] = factor * ctf[i, k]
            weighted[k] = values[i, k] * factor
        for s in range(n_shifts):
            row = rows[i * n_shifts + s]
            for k in range(n_pixels):
                row[k] = weighted[k] * phases[s, k]


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def posterior(  # type: ignore[no-untyped-def]
    scores, norm, log_state, log_shift, inverse_temperature, mass, number, shift_probability, reference_probability,
    best, kept, candidate_log, candidate, marginal, first, last,
):  # fmt: skip
    """Turn scores into truncated probabilities, in place, and describe them."""
    n_shifts = scores.shape[1]
    n_states = log_state.size
    n_references = reference_probability.shape[1]
    per_reference = n_states // n_references
    offset = np.empty(n_states, np.float32)
    highest = np.empty(n_shifts, np.float32)
    power = np.empty(_CHUNK, np.int32)
    depths = np.empty(_CHUNK, np.float32)
    for i in range(first, last):
        for o in range(n_states):
            offset[o] = log_state[o] - inverse_temperature * np.float32(0.5) * norm[i, o]
        top = np.float32(-3e38)
        for s in range(n_shifts):
            highest[s] = _log_posterior(scores[i, s], offset, log_shift[i, s], inverse_temperature)
            if highest[s] > top:
                top = highest[s]
                best[i, 1] = s
        row = scores[i, best[i, 1]]
        for o in range(n_states):
            if row[o] == top:
                best[i, 0] = o
                break
        if candidate.shape[1] > 0:
            _best_orientations(scores[i], n_states, top, candidate_log[i], candidate[i])
        histogram = np.zeros(BINS + 1)
        total = 0.0
        spread = 0.0
        for s in range(n_shifts):
            if highest[s] < top - np.float32(REACH):
                continue
            for r in range(n_references):
                part = scores[i, s, r * per_reference : (r + 1) * per_reference]
                mass_here, spread_here = _exponentiate(part, top, power, depths, histogram)
                reference_probability[i, r] += mass_here
                shift_probability[i, s] += mass_here
                total += mass_here
                spread += spread_here
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
        if marginal.shape[0] > 0:
            marginal[i, :] = 0
        kept[i] = 0
        for s in range(n_shifts):
            if highest[s] < top - np.float32(REACH):
                scores[i, s, :] = 0
                continue
            kept[i] += _truncate(scores[i, s], n_states, least, np.float32(1 / held))
            if marginal.shape[0] > 0:
                for o in range(n_states):
                    marginal[i, o] += scores[i, s, o]
        number[i, 0] = np.float64(top) + np.log(total)
        number[i, 1] = 1 / total
        number[i, 2] = np.exp(np.log(total) + spread / total)


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _log_posterior(row, offset, prior, inverse_temperature):  # type: ignore[no-untyped-def]
    highest = np.float32(-3e38)
    for o in range(offset.size):
        value = inverse_temperature * row[o] + (offset[o] + prior)
        row[o] = value
        highest = max(highest, value)
    return highest


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
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


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _truncate(row, n_states, least, scale):  # type: ignore[no-untyped-def]
    count = 0
    for o in range(n_states):
        keep = row[o] >= least
        count += keep
        row[o] = row[o] * scale if keep else np.float32(0)
    return count


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
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


@numba.njit(cache=True, nogil=True)
def best_products(rows, references, norm, best, n_shifts, number):  # type: ignore[no-untyped-def]
    """Compute dot product and norm at each image's best state, the dot product in float64."""
    for i in range(best.shape[0]):
        state = best[i, 0]
        row = i * n_shifts + best[i, 1]
        dot = 0.0
        for k in range(rows.shape[1]):
            a = rows[row, k]
            b = references[state, k]
            dot += np.float64(a.real) * b.real + np.float64(a.imag) * b.imag
        number[i, 3] = dot
        number[i, 4] = norm[i, state]


@numba.njit(cache=True, nogil=True)
def gather(scores, start, n_states, state, shift, weight, first, last):  # type: ignore[no-untyped-def]
    """Write the states of probability above zero, image by image."""
    for i in range(first, last):
        at = start[i]
        for s in range(scores.shape[1]):
            for o in range(n_states):
                p = scores[i, s, o]
                if p > 0:
                    state[at] = o
                    shift[at] = s
                    weight[at] = p
                    at += 1


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def add_sparse(  # type: ignore[no-untyped-def]
    rows, information, image, shift, weight, order, first, n_shifts, numerator, weights, begin, end,
):  # fmt: skip
    """Add the listed (image, shift) rows to their states ``begin`` to ``end``, in image order."""
    for o in range(begin, end):
        for e in range(first[o], first[o + 1]):
            entry = order[e]
            i = image[entry]
            p = weight[entry]
            row = rows[i * n_shifts + shift[entry]]
            for k in range(row.size):
                numerator[o, k] += row[k] * p
                weights[o, k] += information[i, k] * p
