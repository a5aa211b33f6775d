"""Fused residuals and analytic derivatives of poses over Fourier pixels, on the CPU."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit, prange

from cryopipe.kernels.cpu.cells import BLOCK, FASTMATH, ONE, REDUCE, interpolate, load_cells, twiddles

#: number of sums over pixels from which :func:`_assemble` puts the normal equations together
N_SUMS = 31
#: rows of a block's buffer: rotation columns u, v, model S = C Y, centred data, defocus column, image frequency
U, V, S, E, F, KX, KY = 0, 2, 4, 6, 8, 10, 11


@njit(fastmath=FASTMATH)
def _centre_data(kx, ky, data, root, twx, twy, buffer):
    """Write X exp(-2 pi i k.t / box) / sigma and the frequencies to ``buffer``; ``twx``, ``twy`` are the twiddles."""
    k_max = np.int64(twx.size // 4)
    one = np.uint64(1)
    for k in range(kx.size):
        px = np.uint64(2 * (kx[k] + k_max))
        py = np.uint64(2 * (ky[k] + k_max))
        pr = twx[px] * twy[py] - twx[px + one] * twy[py + one]
        pi = twx[px] * twy[py + one] + twx[px + one] * twy[py]
        dr = data[2 * k] * root[k]
        di = data[2 * k + 1] * root[k]
        buffer[E, k] = dr * pr - di * pi
        buffer[E + 1, k] = dr * pi + di * pr
        buffer[KX, k] = np.float32(kx[k])
        buffer[KY, k] = np.float32(ky[k])


@njit(fastmath=REDUCE)
def _columns(cells, a, ctf, slope, root, scale, buffer):
    """Interpolate value and gradient and write the columns u, v, S (and F) to ``buffer``, divided by sigma.

    With the padded pose a = padding A, u = scale C grad(Y).a[2] and v = scale C grad(Y).(ky a[0] - kx a[1]): turning
    the pose by exp([w]x) from the left moves a sample by wx (-ky a[2]) + wy (kx a[2]) + wz (ky a[0] - kx a[1]).
    """
    a00, a01, a02 = a[0, 0], a[0, 1], a[0, 2]
    a10, a11, a12 = a[1, 0], a[1, 1], a[1, 2]
    a20, a21, a22 = a[2, 0], a[2, 1], a[2, 2]
    for k in range(ctf.size):
        fx, fy, fz, sign = cells[16, k], cells[17, k], cells[18, k], cells[19, k]
        qx, qy = buffer[KX, k], buffer[KY, k]
        gain = ctf[k] * root[k]
        tilted = gain * scale
        ex = qy * a00 - qx * a10
        ey = qy * a01 - qx * a11
        ez = qy * a02 - qx * a12
        for part in range(2):
            # at -q the value is the conjugate, and its gradient by q is minus the conjugate gradient
            even = sign if part == 1 else ONE
            odd = ONE if part == 1 else sign
            ax = cells[2 + part, k] - cells[part, k]
            bx = cells[6 + part, k] - cells[4 + part, k]
            cx = cells[10 + part, k] - cells[8 + part, k]
            dx = cells[14 + part, k] - cells[12 + part, k]
            p = cells[part, k] + fx * ax
            r = cells[8 + part, k] + fx * cx
            lower_y = cells[4 + part, k] + fx * bx - p
            upper_y = cells[12 + part, k] + fx * dx - r
            lower = p + fy * lower_y
            gz = r + fy * upper_y - lower
            lower_x = ax + fy * (bx - ax)
            gx = lower_x + fz * (cx + fy * (dx - cx) - lower_x)
            gy = lower_y + fz * (upper_y - lower_y)
            value = even * (lower + fz * gz)
            buffer[U + part, k] = odd * tilted * (gx * a20 + gy * a21 + gz * a22)
            buffer[V + part, k] = odd * tilted * (gx * ex + gy * ey + gz * ez)
            buffer[S + part, k] = gain * value
    if slope.size > 0:
        for k in range(ctf.size):
            # S without its CTF is not at hand where C = 0: interpolate again, from the first-level cache
            real, imag = interpolate(cells, k)
            change = slope[k] * root[k] * scale
            buffer[F, k] = change * real
            buffer[F + 1, k] = change * imag


@njit(fastmath=REDUCE)
def _reduce_rotation(buffer, count, scale, sums):
    """Add the block's sums over the rotation columns and the residual."""
    uyy = uxy = uxx = uvy = uvx = vv = np.float32(0)
    uey = uex = ve = ee = np.float32(0)
    for i in range(count):
        ur, ui, vr, vi = buffer[U, i], buffer[U + 1, i], buffer[V, i], buffer[V + 1, i]
        er = buffer[E, i] - scale * buffer[S, i]
        ei = buffer[E + 1, i] - scale * buffer[S + 1, i]
        x, y = buffer[KX, i], buffer[KY, i]
        uu = ur * ur + ui * ui
        uv = ur * vr + ui * vi
        ue = ur * er + ui * ei
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
    for j, value in enumerate((uyy, uxy, uxx, uvy, uvx, vv, uey, uex, ve, ee)):
        sums[j] += value


@njit(fastmath=REDUCE)
def _reduce_shift(buffer, count, scale, sums):
    """Add the block's sums over the shift columns w = i M, M = scale S (times kx or ky) with all other columns."""
    uxx = uxy = uyy = vx = vy = np.float32(0)
    wxx = wxy = wyy = ex = ey = np.float32(0)
    for i in range(count):
        ur, ui, vr, vi = buffer[U, i], buffer[U + 1, i], buffer[V, i], buffer[V + 1, i]
        wr = -scale * buffer[S + 1, i]
        wi = scale * buffer[S, i]
        x, y = buffer[KX, i], buffer[KY, i]
        uw = ur * wr + ui * wi
        vw = vr * wr + vi * wi
        ww = wr * wr + wi * wi
        # the model's own part of the residual is orthogonal to i M, so the data alone counts
        we = wr * buffer[E, i] + wi * buffer[E + 1, i]
        uxx += uw * x * x
        uxy += uw * x * y
        uyy += uw * y * y
        vx += vw * x
        vy += vw * y
        wxx += ww * x * x
        wxy += ww * x * y
        wyy += ww * y * y
        ex += we * x
        ey += we * y
    for j, value in enumerate((uxx, uxy, uyy, vx, vy, wxx, wxy, wyy, ex, ey)):
        sums[10 + j] += value


@njit(fastmath=REDUCE)
def _reduce_scale(buffer, count, scale, sums):
    """Add the block's sums over the scale column S; it is orthogonal to the shift columns i M."""
    sy = sx = sv = ss = se = np.float32(0)
    for i in range(count):
        sr, si = buffer[S, i], buffer[S + 1, i]
        us = buffer[U, i] * sr + buffer[U + 1, i] * si
        sy += us * buffer[KY, i]
        sx += us * buffer[KX, i]
        sv += buffer[V, i] * sr + buffer[V + 1, i] * si
        ss += sr * sr + si * si
        se += sr * (buffer[E, i] - scale * sr) + si * (buffer[E + 1, i] - scale * si)
    for j, value in enumerate((sy, sx, sv, ss, se)):
        sums[20 + j] += value


@njit(fastmath=REDUCE)
def _reduce_defocus(buffer, count, scale, sums):
    """Add the block's sums over the defocus column F = scale dC/ddefocus Y; it is orthogonal to the shift columns."""
    fy = fx = fv = ff = fe = sf = np.float32(0)
    for i in range(count):
        fr, fi, sr, si = buffer[F, i], buffer[F + 1, i], buffer[S, i], buffer[S + 1, i]
        uf = buffer[U, i] * fr + buffer[U + 1, i] * fi
        fy += uf * buffer[KY, i]
        fx += uf * buffer[KX, i]
        fv += buffer[V, i] * fr + buffer[V + 1, i] * fi
        ff += fr * fr + fi * fi
        fe += fr * (buffer[E, i] - scale * sr) + fi * (buffer[E + 1, i] - scale * si)
        sf += sr * fr + si * fi
    for j, value in enumerate((fy, fx, fv, ff, fe, sf)):
        sums[25 + j] += value


@njit
def _assemble(sums, kappa, with_scale, with_defocus, hessian, gradient):
    """Put the sums in their places; columns: -ky u, kx u, v (rotation), i kappa kx M, i kappa ky M (shift), ..."""
    hessian[0, 0], hessian[0, 1], hessian[1, 1] = sums[0], -sums[1], sums[2]
    hessian[0, 2], hessian[1, 2], hessian[2, 2] = -sums[3], sums[4], sums[5]
    hessian[0, 3], hessian[0, 4] = -kappa * sums[11], -kappa * sums[12]
    hessian[1, 3], hessian[1, 4] = kappa * sums[10], kappa * sums[11]
    hessian[2, 3], hessian[2, 4] = kappa * sums[13], kappa * sums[14]
    hessian[3, 3], hessian[3, 4], hessian[4, 4] = kappa**2 * sums[15], kappa**2 * sums[16], kappa**2 * sums[17]
    gradient[0], gradient[1], gradient[2] = sums[6], -sums[7], -sums[8]
    gradient[3], gradient[4] = -kappa * sums[18], -kappa * sums[19]
    at = 5
    if with_scale:
        hessian[0, at], hessian[1, at], hessian[2, at] = -sums[20], sums[21], sums[22]
        hessian[3, at] = hessian[4, at] = 0.0
        hessian[at, at], gradient[at] = sums[23], -sums[24]
        at += 1
    if with_defocus:
        hessian[0, at], hessian[1, at], hessian[2, at] = -sums[25], sums[26], sums[27]
        hessian[3, at] = hessian[4, at] = 0.0
        hessian[at, at], gradient[at] = sums[28], -sums[29]
        if with_scale:
            hessian[5, at] = sums[30]
    for i in range(hessian.shape[0]):
        for j in range(i):
            hessian[i, j] = hessian[j, i]


@njit(parallel=True, fastmath=FASTMATH, cache=True, nogil=True)
def normal_equations(
    flat, radius, data, ctf, slope, inverse_variance, rotations, shifts, scale, kx, ky, k_max, padding, box, with_scale,
    hessian, gradient, value,
):  # fmt: skip
    """Fill hessian [n, p, p], gradient [n, p] and value [n]; one image a task."""
    kappa = 2 * np.pi / box
    for n in prange(data.shape[0]):
        a = rotations[n] * padding
        twx = np.empty(2 * (2 * k_max + 1), np.float32)
        twy = np.empty(2 * (2 * k_max + 1), np.float32)
        twiddles(-kappa * shifts[n, 0], k_max, twx)
        twiddles(-kappa * shifts[n, 1], k_max, twy)
        # one row serves all images, or each has its own
        root = np.sqrt(inverse_variance[min(np.int64(n), inverse_variance.shape[0] - 1)])
        with_defocus = slope.shape[1] > 0
        cells = np.empty((20, BLOCK), np.float32)
        buffer = np.empty((12, BLOCK), np.float32)
        sums = np.zeros(N_SUMS, np.float64)
        for begin in range(0, kx.size, BLOCK):
            end = min(begin + BLOCK, kx.size)
            block = slice(begin, end)
            load_cells(flat, radius, a, kx[block], ky[block], cells)
            _centre_data(kx[block], ky[block], data[n, 2 * begin : 2 * end], root[block], twx, twy, buffer)
            _columns(cells, a, ctf[n, block], slope[n, block], root[block], scale[n], buffer)
            _reduce_rotation(buffer, end - begin, scale[n], sums)
            _reduce_shift(buffer, end - begin, scale[n], sums)
            if with_scale:
                _reduce_scale(buffer, end - begin, scale[n], sums)
            if with_defocus:
                _reduce_defocus(buffer, end - begin, scale[n], sums)
        _assemble(sums, kappa, with_scale, with_defocus, hessian[n], gradient[n])
        value[n] = 0.5 * sums[9]
