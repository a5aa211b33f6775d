"""Correlation of an amplitude spectrum with |CTF| of many candidates, on the CPU."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from cryopipe.kernels.cpu.threads import in_parts

REDUCE = {"contract", "nsz", "arcp", "reassoc"}
#: candidates that share a block of pixels while it is in the first-level cache
TILE = 8
BLOCK = 1024
#: sin(pi r) = r P(r^2) on |r| <= 1/2, minimax: 3.3e-9, less than float32 resolves
P0, P1, P2 = np.float32(3.14159258), np.float32(-5.16770688), np.float32(2.55003138)
P3, P4 = np.float32(-0.59804517), np.float32(0.07722013)
HALF = np.float32(0.5)


@njit(inline="always")
def _block_sums(amplitude, weight, base, slope, cos2, sin2, mean, a, b, shift):
    """Return sum(A |CTF|) and sum(w CTF^2) over a block; phases are in half turns, the period of |sin|."""
    cross = np.float32(0)
    energy = np.float32(0)
    for k in range(slope.size):
        u = base[k] + shift + slope[k] * (mean + a * cos2[k] + b * sin2[k])
        r = u - np.floor(u + HALF)
        r2 = r * r
        s = r * (P0 + r2 * (P1 + r2 * (P2 + r2 * (P3 + r2 * P4))))
        cross += amplitude[k] * abs(s)
        energy += weight[k] * s * s
    return cross, energy


def ctf_score(*arguments: Any) -> None:
    """Fill ``out`` [b, m]; the arguments are those of ``_ctf_score``."""
    images, candidates = arguments[-1].shape
    in_parts(_ctf_score, images * (-(-candidates // TILE)), *arguments)


@njit(cache=True, nogil=True, fastmath=REDUCE)
def _ctf_score(first_task, last_task, amplitude, weight, base, slope, cos2, sin2, candidates, norm, out):
    """Work through some tiles; amplitude [b, K] is weighted, candidates [b, m, 4] = (mean, a, b, phase shift)."""
    n_tiles = (candidates.shape[1] + TILE - 1) // TILE
    for task in range(first_task, last_task):
        image = task // n_tiles
        first = (task % n_tiles) * TILE
        last = min(first + TILE, candidates.shape[1])
        sums = np.zeros((TILE, 2))
        for begin in range(0, slope.size, BLOCK):
            # slices, not index ranges: only then does the inner loop vectorise
            part = slice(begin, min(begin + BLOCK, slope.size))
            for m in range(first, last):
                mean, a, b, shift = candidates[image, m]
                cross, energy = _block_sums(
                    amplitude[image, part], weight[part], base[image, part], slope[part], cos2[part], sin2[part],
                    mean, a, b, shift,
                )  # fmt: skip
                sums[m - first, 0] += cross
                sums[m - first, 1] += energy
        for m in range(first, last):
            size = np.sqrt(norm[image] * sums[m - first, 1])
            out[image, m] = sums[m - first, 0] / size if size > 0 else 0.0
