"""Checks of the kernels that simulated movies and particles are summed with."""

from __future__ import annotations

import numpy as np

from cryopipe.kernels.scattering import blobs, field, spreading
from cryopipe.selftest.row import Check, Mover


def _spreading_error(move: Mover) -> float:
    """Compare with the kernel written out on the whole periodic grid, in two and in three dimensions."""
    rng, size, n = np.random.default_rng(11), 24, 6
    places, weights = rng.uniform(-size, 2 * size, (n, 3)), rng.standard_normal((n, 2)).astype(np.float32)
    distance = (np.arange(size) - places[:, :, None] + size / 2) % size - size / 2
    z2 = (2 / spreading.WIDTH * distance) ** 2
    x, y, z = np.moveaxis(np.where(z2 <= 1, np.exp(spreading.BETA * (np.sqrt(np.maximum(1 - z2, 0)) - 1)), 0), 1, 0)
    flat, cube = np.zeros((size, size, 2), np.float32), np.zeros((size, size, size), np.float32)
    spreading.spread_2d(flat, np.ascontiguousarray(places[:, :2]), weights)
    spreading.spread_3d(cube, places, weights[:, 0].copy())
    errors = (
        np.abs(flat - np.einsum("ny,nx,nc->yxc", y, x, weights)).max(),
        np.abs(cube - np.einsum("nz,ny,nx,n->zyx", z, y, x, weights[:, 0])).max(),
    )
    return float(max(errors) / np.abs(weights).max())


def _blobs_error(move: Mover) -> float:
    """Compare with Gaussians written out on the whole image, cut off where the kernel cuts them off."""
    rng, box, n, m = np.random.default_rng(12), 32, 3, 5
    positions, weights, sigmas = rng.uniform(-8, 8, (m, 3)), rng.uniform(0.5, 1.5, m), rng.uniform(1, 2, m)
    rotations, origins = np.linalg.qr(rng.standard_normal((n, 3, 3)))[0], rng.uniform(-2, 2, (n, 2))
    images = np.zeros((n, box, box), np.float32)
    blobs.project(positions, weights, sigmas, np.ascontiguousarray(rotations), origins, images)
    centres = np.einsum("nij,mj->nmi", rotations[:, :2], positions) + box // 2 - origins[:, None]
    t = (np.arange(box) - centres[..., None]) / sigmas[:, None, None]
    x, y = np.moveaxis(np.where(np.abs(t) <= 4.5, np.exp(-(t**2) / 2), 0), 2, 0)
    expected = np.einsum("nmy,nmx,m->nyx", y, x, weights / (2 * np.pi * sigmas**2))
    return float(np.abs(images - expected).max() / expected.max())


def _field_error(move: Mover) -> float:
    """Compare two frames with their formula, and an image across a corner with a rolled one."""
    rng, shape = np.random.default_rng(13), (20, 11)
    fy, fx = np.fft.fftfreq(20), np.fft.rfftfreq(20)
    sine, cosine, fading, amplitude, alike = rng.random((5, *shape)).astype(np.float32)
    even, odd, static = rng.standard_normal((3, *shape, 2)).astype(np.float32).view(np.complex64)[..., 0]
    ice, shift, travel, errors = np.zeros((*shape, 2), np.float32), np.array([3.2, -1.7]), np.array([0.4, 0.9]), []
    walk = np.zeros(shape, np.complex128)
    for first in (True, False):
        draw = rng.standard_normal(ice.shape).astype(np.float32)
        keep = np.zeros(shape) if first else alike.astype(np.float64)
        walk = keep * walk + np.sqrt(1 - keep**2) * (draw[..., 0] + 1j * draw[..., 1])
        moved = np.exp(-2j * np.pi * (fx * shift[0] + fy[:, None] * shift[1]))
        moved *= np.sinc(fx * travel[0] + fy[:, None] * travel[1])
        expected = ((even * sine + odd * cosine) * fading + static + walk * amplitude * sine) * moved
        found = even.copy()
        field.transfer(
            found, odd, sine=sine, cosine=cosine, fading=fading, static=static, ice_amplitude=amplitude, ice=ice,
            alike=alike, draw=draw, first=first, fy=fy, fx=fx, shift=shift, travel=travel,
        )  # fmt: skip
        errors.append(np.abs(found - expected).max() / np.abs(expected).max())
    total = np.zeros(shape, np.float32)
    field.add_image(total, sine[:6, :5].copy(), -2, 9)
    expected = np.zeros(shape)
    expected[:6, :5] = sine[:6, :5]
    return float(max(*errors, np.abs(total - np.roll(expected, (-2, 9), (0, 1))).max()))


CHECKS = (
    Check("scattering.spreading", "points on a grid", _spreading_error, 1e-5, on_gpu=False),
    Check("scattering.blobs", "projections", _blobs_error, 1e-5, on_gpu=False),
    Check("scattering.field", "frames and images", _field_error, 1e-5, on_gpu=False),
)
