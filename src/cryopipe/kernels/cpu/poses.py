"""Fused residuals and analytic derivatives of poses over Fourier pixels, on the CPU."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from cryopipe.kernels.cpu.pose_parts.cells import next_cells
from cryopipe.kernels.cpu.pose_parts.columns import apply_phase, centre_data, differentiate, take_offset
from cryopipe.kernels.cpu.pose_parts.workspace import (
    BLOCK,
    DATA,
    EXTRA,
    FREQUENCY,
    GAIN,
    REDUCE,
    SLOPE,
    WORKSPACE,
    U,
    V,
    Y,
)
from cryopipe.kernels.cpu.threads import in_parts

#: sums over pixels: 20 of rotation, shift and residual; 7 of each further column with those; 10 of such columns among
#: each other; their 5 squares
N_BASE, N_EXTRA, MOST_EXTRA = 20, 7, 5
N_SUMS = N_BASE + N_EXTRA * MOST_EXTRA + MOST_EXTRA * MOST_EXTRA


@njit(inline="always")
def _reduce_pose(count, scale, w, sums):
    """Add the block's sums over the columns u, v (rotation), i M with M = scale C Y (shift) and the residual."""
    zero = np.float32(0)
    uyy = uxy = uxx = uvy = uvx = vv = uey = uex = ve = ee = zero
    suxx = suxy = suyy = svx = svy = sxx = sxy = syy = sex = sey = zero
    for k in range(count):
        ur, ui, vr, vi = w[U + k], w[U + BLOCK + k], w[V + k], w[V + BLOCK + k]
        x, y = w[FREQUENCY + k], w[FREQUENCY + BLOCK + k]
        gain = scale * w[GAIN + k]
        mr, mi = gain * w[Y + k], gain * w[Y + BLOCK + k]
        dr, di = w[DATA + k], w[DATA + BLOCK + k]
        er, ei = dr - mr, di - mi
        uu, uv, ue = ur * ur + ui * ui, ur * vr + ui * vi, ur * er + ui * ei
        uyy += uu * y * y
        uxy += uu * x * y
        uxx += uu * x * x
        uvy += uv * y
        uvx += uv * x
        vv += vr * vr + vi * vi
        uey += ue * y
        uex += ue * x
        ve += vr * er + vi * ei
        ee += er * er + ei * ei
        us, vs, ss = ui * mr - ur * mi, vi * mr - vr * mi, mr * mr + mi * mi
        # the model's own part of the residual is orthogonal to i M, so the data alone counts
        se = di * mr - dr * mi
        suxx += us * x * x
        suxy += us * x * y
        suyy += us * y * y
        svx += vs * x
        svy += vs * y
        sxx += ss * x * x
        sxy += ss * x * y
        syy += ss * y * y
        sex += se * x
        sey += se * y
    for j, value in enumerate((uyy, uxy, uxx, uvy, uvx, vv, uey, uex, ve, ee)):
        sums[j] += value
    for j, value in enumerate((suxx, suxy, suyy, svx, svy, sxx, sxy, syy, sex, sey)):
        sums[10 + j] += value


@njit(inline="always")
def _write_extra(count, with_scale, n_defocus, scale, per_unit, w):
    """Write the columns of the scale, C Y, and of the defocus, scale dC/dchi Y times its quadratic form."""
    at = EXTRA
    if with_scale:
        for k in range(count):
            w[at + k] = w[GAIN + k] * w[Y + k]
            w[at + BLOCK + k] = w[GAIN + k] * w[Y + BLOCK + k]
        at += 2 * BLOCK
    for term in range(n_defocus):
        for k in range(count):
            x, y = w[FREQUENCY + k], w[FREQUENCY + BLOCK + k]
            form = x * x + y * y
            if term == 1:
                form = x * x - y * y
            elif term == 2:
                form = x * y + x * y
            change = per_unit * form * scale * w[SLOPE + k]
            w[at + k] = change * w[Y + k]
            w[at + BLOCK + k] = change * w[Y + BLOCK + k]
        at += 2 * BLOCK


@njit(inline="always")
def _reduce_extra(count, scale, at, w, sums):
    """Add the block's sums of one further column with the columns of pose and residual."""
    uy = ux = vd = sx = sy = de = dd = np.float32(0)
    for k in range(count):
        r, i = w[at + k], w[at + BLOCK + k]
        x, y = w[FREQUENCY + k], w[FREQUENCY + BLOCK + k]
        gain = scale * w[GAIN + k]
        mr, mi = gain * w[Y + k], gain * w[Y + BLOCK + k]
        ud = w[U + k] * r + w[U + BLOCK + k] * i
        sd = mr * i - mi * r
        uy += ud * y
        ux += ud * x
        vd += w[V + k] * r + w[V + BLOCK + k] * i
        sx += sd * x
        sy += sd * y
        de += r * (w[DATA + k] - mr) + i * (w[DATA + BLOCK + k] - mi)
        dd += r * r + i * i
    for j, value in enumerate((uy, ux, vd, sx, sy, de, dd)):
        sums[j] += value


@njit(inline="always")
def _product(count, first, second, w):
    total = np.float32(0)
    for k in range(count):
        total += w[first + k] * w[second + k] + w[first + BLOCK + k] * w[second + BLOCK + k]
    return total


@njit(inline="always")
def add_sums(
    flat, radius, data, ctf, variance, a, turn_x, turn_y, scale, phase, per_unit, spectrum, offset, kx, ky,
    with_scale, n_defocus, row, column, fraction, w, sums,
):  # fmt: skip
    """Fill ``sums`` [N_SUMS] of one image; the further columns are scale, defocus (1 or 3 terms) and offset.

    Parameters
    ----------
    flat : float32 [2 V]
        Half cube of the reference, V voxels of radius ``radius``, flat.
    radius : int
        Radius of the cube in grid steps.
    data : float32 [2 K]
        Spectrum of the image (re, im).
    ctf, variance : float32 [K]
        CTF, and 1 / sigma^2.
    a : float32 [3, 3]
        Pose matrix times the padding.
    turn_x, turn_y : float
        Minus the shift over the box.
    scale, offset : float32
        Relative scale and grey offset of the image.
    phase : float64 [5] or [0]
        Phase of the CTF in turns; empty where ``ctf`` is the CTF.
    per_unit : float32
        Change of the phase per unit of defocus.
    spectrum : float32 [K'] or [0]
        Spectrum of a grey offset; empty where it is no parameter.
    kx, ky : integer [K]
        Frequencies, Fourier pixels.
    with_scale, n_defocus : bool, int
        Which further columns there are.
    row, column, fraction, w : array
        Buffers of :mod:`cryopipe.kernels.cpu.pose_parts`.
    sums : float64 [N_SUMS]
        Receives the sums.
    """
    sums[:] = 0
    models = int(with_scale) + n_defocus
    ahead = 0
    for begin in range(0, kx.size, BLOCK):
        count = next_cells(flat, radius, a, kx, ky, begin, ahead, row, column, fraction, w)
        ahead = 1 - ahead
        part = slice(begin, begin + count)
        centre_data(
            data[2 * begin : 2 * (begin + count)], ctf[part], variance[part], kx[part], ky[part], turn_x, turn_y, w
        )
        if phase.size > 0:
            apply_phase(phase, count, w)
        extra = models
        if begin < spectrum.size:
            own = spectrum[begin : min(begin + count, spectrum.size)]
            take_offset(own, variance[part], kx[part], ky[part], turn_x, turn_y, offset, EXTRA + 2 * BLOCK * models, w)
            extra += 1
        differentiate(a, scale, count, w)
        _reduce_pose(count, scale, w, sums)
        _write_extra(count, with_scale, n_defocus, scale, per_unit, w)
        for i in range(extra):
            _reduce_extra(count, scale, EXTRA + 2 * BLOCK * i, w, sums[N_BASE + N_EXTRA * i :])
            for j in range(i):
                at = N_BASE + N_EXTRA * MOST_EXTRA + MOST_EXTRA * i + j
                sums[at] += _product(count, EXTRA + 2 * BLOCK * i, EXTRA + 2 * BLOCK * j, w)


@njit(inline="always")
def assemble(s, kappa, extra, hessian, gradient):
    """Put the sums in their places; columns: -ky u, kx u, v (rotation), i kappa kx M, i kappa ky M (shift), further.

    Parameters
    ----------
    s : float64 [N_SUMS]
        Sums of :func:`add_sums`.
    kappa : float
        2 pi / box.
    extra : int
        Number of further columns.
    hessian, gradient : float64 [p, p], [p]
        Receive the normal equations.
    """
    hessian[0, 0], hessian[0, 1], hessian[1, 1] = s[0], -s[1], s[2]
    hessian[0, 2], hessian[1, 2], hessian[2, 2] = -s[3], s[4], s[5]
    hessian[0, 3], hessian[0, 4] = -kappa * s[11], -kappa * s[12]
    hessian[1, 3], hessian[1, 4] = kappa * s[10], kappa * s[11]
    hessian[2, 3], hessian[2, 4] = kappa * s[13], kappa * s[14]
    hessian[3, 3], hessian[3, 4], hessian[4, 4] = kappa**2 * s[15], kappa**2 * s[16], kappa**2 * s[17]
    gradient[0], gradient[1], gradient[2] = s[6], -s[7], -s[8]
    gradient[3], gradient[4] = -kappa * s[18], -kappa * s[19]
    for e in range(extra):
        own = s[N_BASE + N_EXTRA * e :]
        at = 5 + e
        hessian[0, at], hessian[1, at], hessian[2, at] = -own[0], own[1], own[2]
        hessian[3, at], hessian[4, at] = kappa * own[3], kappa * own[4]
        gradient[at], hessian[at, at] = -own[5], own[6]
        for f in range(e):
            hessian[5 + f, at] = s[N_BASE + N_EXTRA * MOST_EXTRA + MOST_EXTRA * e + f]
    for i in range(5 + extra):
        for j in range(i):
            hessian[i, j] = hessian[j, i]


def normal_equations(*arguments: Any) -> None:
    """Fill hessian [n, p, p], gradient [n, p] and value [n]; the arguments are those of ``_normal_equations``."""
    in_parts(_normal_equations, len(arguments[-1]), *arguments)


@njit(cache=True, nogil=True, fastmath=REDUCE)
def _normal_equations(
    begin, end, flat, radius, data, ctf, inverse_variance, rotations, shifts, scale, phase, per_unit, spectrum, offset,
    kx, ky, padding, box, with_scale, n_defocus, hessian, gradient, value,
):  # fmt: skip
    """Work through the images begin to end."""
    extra = int(with_scale) + n_defocus + int(spectrum.size > 0)
    row, column = np.empty((2, BLOCK), np.int32), np.empty((2, BLOCK), np.int32)
    fraction, w = np.empty((2, 4 * BLOCK), np.float32), np.zeros(WORKSPACE, np.float32)
    sums = np.empty(N_SUMS, np.float64)
    for n in range(begin, end):
        own = min(n, inverse_variance.shape[0] - 1)  # one row of weights serves all, or each has its own
        add_sums(
            flat, radius, data[n], ctf[n], inverse_variance[own], rotations[n] * padding, -shifts[n, 0] / box,
            -shifts[n, 1] / box, scale[n], phase[n], per_unit[n], spectrum, offset[n], kx, ky, with_scale, n_defocus,
            row, column, fraction, w, sums,
        )  # fmt: skip
        assemble(sums, 2 * np.pi / box, extra, hessian[n], gradient[n])
        value[n] = 0.5 * sums[9]
