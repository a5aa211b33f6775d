"""Small inputs that the kernel tests share."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation


def half_plane(radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Return kx, ky (int32) of the unique half plane inside a radius, without DC, sorted by shell, ky, kx.

    They are read-only like those of ``FourierPixels``, so that the CPU kernels are compiled for one kind of array alone.
    """
    ky, kx = (a.ravel() for a in np.mgrid[-radius : radius + 1, 0 : radius + 1])
    keep = (kx**2 + ky**2 <= radius**2) & ((kx > 0) | (ky > 0))
    kx, ky = kx[keep].astype(np.int32), ky[keep].astype(np.int32)
    order = np.lexsort((kx, ky, np.rint(np.hypot(kx, ky))))
    kx, ky = kx[order], ky[order]
    kx.flags.writeable = ky.flags.writeable = False
    return kx, ky


def rotations(n: int, seed: int = 1) -> np.ndarray:
    """Return float32 [n, 3, 3] uniform rotations; the first is the identity, whose samples lie on grid points."""
    found = Rotation.random(n, random_state=seed).as_matrix()
    found[0] = np.eye(3)
    return found.astype(np.float32)


def complex_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def noise_cube(rng: np.random.Generator, radius: int) -> np.ndarray:
    """Return a half cube of white noise that is Hermitian on its plane kx = 0."""
    cube = complex_noise(rng, (2 * radius + 1, 2 * radius + 1, radius + 1))
    cube[:, :, 0] = (cube[:, :, 0] + np.conj(cube[::-1, ::-1, 0])) / 2
    return cube


def half_cube(volume: np.ndarray, padding: int, radius: int, *, correct: bool = True) -> np.ndarray:
    """Return the centred half cube of a real volume, divided by the trilinear kernel's transform (separable sinc^2)."""
    box = volume.shape[0]
    correction = np.sinc((np.arange(box) - box // 2) / (padding * box)) ** (2 if correct else 0)
    corrected = volume / (correction[:, None, None] * correction[:, None] * correction)
    side = padding * box
    padded = np.zeros((side,) * 3)
    start = side // 2 - box // 2
    padded[start : start + box, start : start + box, start : start + box] = corrected
    spectrum = np.fft.rfftn(np.fft.ifftshift(padded)) / box
    index = np.arange(-radius, radius + 1) % side
    return np.ascontiguousarray(spectrum[np.ix_(index, index, np.arange(radius + 1))]).astype(np.complex64)


def blobs(box: int, rng: np.random.Generator, count: int = 12) -> np.ndarray:
    """Return a real volume of Gaussian blobs of sd 1.5 voxels within 0.3 box of the centre."""
    axis = np.arange(box) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    volume = np.zeros((box,) * 3)
    for _ in range(count):
        at = rng.standard_normal(3)
        at *= 0.3 * box * rng.random() ** (1 / 3) / np.linalg.norm(at)
        volume += np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2) / (2 * 1.5**2))
    return volume
