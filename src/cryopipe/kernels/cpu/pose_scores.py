"""Log-likelihoods of candidate poses, on the CPU."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit, prange

from cryopipe.kernels.cpu.cells import BLOCK, FASTMATH, REDUCE, interpolate, load_cells, twiddles


@njit(fastmath=REDUCE)
def _energy(data, root):
    total = 0.0
    for k in range(root.size):
        total += np.float64((data[2 * k] ** 2 + data[2 * k + 1] ** 2) * root[k] ** 2)
    return total


@njit(fastmath=REDUCE)
def _cross_block(cells, data, ctf, root, scale, cross):
    """Fill ``cross`` [2, BLOCK] with conj(X) scale C Y / sigma^2 and return the sum of (scale C)^2 |Y|^2 / sigma^2."""
    energy = np.float32(0)
    for k in range(ctf.size):
        vr, vi = interpolate(cells, k)
        gain = scale * ctf[k] * root[k]
        vr *= gain
        vi *= gain
        energy += vr * vr + vi * vi
        xr = data[2 * k] * root[k]
        xi = data[2 * k + 1] * root[k]
        cross[0, k] = xr * vr + xi * vi
        cross[1, k] = xr * vi - xi * vr
    return energy


@njit(fastmath=REDUCE)
def _shifted_sum(cross, kx, ky, twx, twy, k_max):
    """Return Re sum(cross exp(i phi)) over one block for one shift."""
    total = np.float32(0)
    one = np.uint64(1)
    for k in range(kx.size):
        px = np.uint64(2 * (kx[k] + k_max))
        py = np.uint64(2 * (ky[k] + k_max))
        pr = twx[px] * twy[py] - twx[px + one] * twy[py + one]
        pi = twx[px] * twy[py + one] + twx[px + one] * twy[py]
        total += cross[0, k] * pr - cross[1, k] * pi
    return total


@njit(parallel=True, fastmath=FASTMATH, cache=True, nogil=True)
def score_poses(
    flat, radius, data, ctf, inverse_variance, rotations, shifts, scale, kx, ky, k_max, padding, box, out
):  # fmt: skip
    """Fill ``out`` [n, m, s] with log-likelihoods; rotations [n, m, 3, 3], shifts [n, m, s, 2]; one image a task."""
    kappa = 2 * np.pi / box
    n_shifts = shifts.shape[2]
    for n in prange(data.shape[0]):
        twx = np.empty((n_shifts, 2 * (2 * k_max + 1)), np.float32)
        twy = np.empty((n_shifts, 2 * (2 * k_max + 1)), np.float32)
        cells = np.empty((20, BLOCK), np.float32)
        cross = np.empty((2, BLOCK), np.float32)
        sums = np.empty(n_shifts, np.float64)
        # one row serves all images, or each has its own
        root = np.sqrt(inverse_variance[min(np.int64(n), inverse_variance.shape[0] - 1)])
        own = _energy(data[n], root)
        for m in range(rotations.shape[1]):
            a = rotations[n, m] * padding
            for s in range(n_shifts):
                twiddles(kappa * shifts[n, m, s, 0], k_max, twx[s])
                twiddles(kappa * shifts[n, m, s, 1], k_max, twy[s])
                sums[s] = 0.0
            energy = 0.0
            for begin in range(0, kx.size, BLOCK):
                end = min(begin + BLOCK, kx.size)
                block = slice(begin, end)
                load_cells(flat, radius, a, kx[block], ky[block], cells)
                pairs = data[n, 2 * begin : 2 * end]
                energy += _cross_block(cells, pairs, ctf[n, block], root[block], scale[n], cross)
                for s in range(n_shifts):
                    sums[s] += _shifted_sum(cross, kx[block], ky[block], twx[s], twy[s], k_max)
            for s in range(n_shifts):
                out[n, m, s] = sums[s] - 0.5 * (energy + own)
