"""From a real volume to its centred half cube of Fourier coefficients at padded sampling, and back.

A half cube is complex64 ``[2R+1, 2R+1, R+1]`` with index ``[kz+R, ky+R, kx]``, ``kx >= 0`` and
``R = ceil(padding (radius + 1/2)) + 1``. Slices have the pixels ``|k| < radius + 1/2``, and the half cube has all
coefficients that trilinear interpolation inside ``radius`` needs. The transforms run axis by axis. They leave out zero
rows of the input, frequencies outside R, and voxels outside the box of the output. Therefore the whole padded cube is
never in memory. Threads work on planes that fit a core's cache. No transform depends on another, so that the number of
threads does not change the result.

Scale: the central slice of the half cube is the orthonormal spectrum of the volume's projection (sum of voxels along
the view).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module, fft_module

_CHUNK_BYTES = 64 << 20
"""Bytes that a GPU transforms at a time. The arrays that prepare them take a few times as much."""
_CACHE_BYTES = 1 << 20
"""Bytes that a CPU transforms at a time. They stay in the second-level cache from filling to cropping."""


def cube_radius(radius: int, padding: int = 2) -> int:
    """Return R of the half cube for slices of shells up to ``radius`` (Fourier pixels of the unpadded box)."""
    return math.ceil(padding * (radius + 0.5)) + 1


def cube_shape(radius: int, padding: int = 2) -> tuple[int, int, int]:
    """Return the shape ``(2R+1, 2R+1, R+1)`` of the half cube."""
    edge = cube_radius(radius, padding)
    return 2 * edge + 1, 2 * edge + 1, edge + 1


def half_cube(volume: Any, radius: int, *, padding: int = 2, threads: int = 1) -> Any:
    """Transform a real volume into its half cube.

    Parameters
    ----------
    volume : ndarray [n, n, n], float32, NumPy or CuPy
        Real map, centre at index ``n // 2``, n even.
    radius : int
        Outermost shell of the slices, in Fourier pixels of the box, at most ``n // 2 - 1``.
    padding : int
        Zero-padding factor.
    threads : int
        CPU threads of the transforms (no influence on the result).

    Returns
    -------
    ndarray complex64 [2R+1, 2R+1, R+1]

    Raises
    ------
    InputError
        The volume is not a cube of even edge, or the radius does not fit into its box.
    """
    box = check_cube(volume.shape, radius, padding)
    xp, fft = _modules(volume)
    size, edge = padding * box, cube_radius(radius, padding)
    phase = _phases(xp, size, edge, box // 2)
    along_y = xp.empty((box, 2 * edge + 1, edge + 1), np.complex64)
    cube = xp.empty((2 * edge + 1, 2 * edge + 1, edge + 1), np.complex64)
    scaled = (phase / box).astype(np.complex64)

    def x_and_y(part: slice) -> None:
        along_x = fft.rfft(xp.asarray(volume[part], np.float32), n=size, axis=2)[:, :, : edge + 1] * phase[edge:]
        full = fft.fft(along_x, n=size, axis=1)
        for there, here in _signed(size, edge):
            xp.multiply(full[:, there], phase[None, here, None], out=along_y[part, here])

    def z(part: slice) -> None:
        full = fft.fft(along_y[:, part], n=size, axis=0)
        for there, here in _signed(size, edge):
            xp.multiply(full[there], scaled[here, None, None], out=cube[here, part])

    bytes_each = size * (edge + 1) * 8
    _share_out(x_and_y, box, bytes_each, xp, threads)
    _share_out(z, 2 * edge + 1, bytes_each, xp, threads)
    return cube


def volume_from_half_cube(
    cube: Any,
    box: int,
    *,
    padding: int = 2,
    threads: int = 1,
    rows: Callable[[slice], Any] | None = None,
    reach: float | None = None,
    profile: np.ndarray | None = None,
) -> Any:
    """Transform a half cube back into the central ``box`` cubed of its padded real volume: the inverse of `half_cube`.

    Parameters
    ----------
    cube : ndarray complex64 [2R+1, 2R+1, R+1], NumPy or CuPy
    box : int
        Even edge of the volume. Coefficients outside the cube are zero.
    padding, threads : int
        As for `half_cube`.
    rows : callable, optional
        ``rows(part)`` returns complex64 values that replace ``cube[:, part]``, so that a filtered cube need not be
        stored. It is called from several threads at once.
    reach : float, optional
        Distance from the origin, in steps of the cube, beyond which all coefficients of the cube or of ``rows`` are
        zero. Columns that are entirely beyond it are not transformed.
    profile : ndarray [box], optional
        The volume is divided by the product of this profile over the three axes (see `gridding_profile`).

    Returns
    -------
    ndarray float32 [box, box, box]
    """
    xp, fft = _modules(cube)
    edge = cube.shape[2] - 1
    size = padding * box
    if cube.shape != (2 * edge + 1, 2 * edge + 1, edge + 1) or 2 * edge > size or box % 2:
        raise InputError(f"a half cube of shape {cube.shape} does not belong to box {box} with padding {padding}")
    phase = xp.conj(_phases(xp, size, edge, box // 2))
    scaled = (phase[edge:] * box).astype(np.complex64)
    inverse = None if profile is None else xp.asarray(1 / profile)
    along_z = xp.zeros((box, 2 * edge + 1, edge + 1), np.complex64)
    volume = xp.empty((box, box, box), np.float32)

    def z(part: slice) -> None:
        columns = edge + 1 if reach is None else _columns(part, edge, reach)
        if columns == 0:
            return
        values = (cube[:, part] if rows is None else rows(part))[:, :, :columns]
        padded = xp.zeros((size, *values.shape[1:]), np.complex64)
        for there, here in _signed(size, edge):
            xp.multiply(values[here], phase[here, None, None], out=padded[there])
        along_z[:, part, :columns] = fft.ifft(padded, axis=0, overwrite_x=True)[:box]

    def y_and_x(part: slice) -> None:
        padded = xp.zeros((along_z[part].shape[0], size, edge + 1), np.complex64)
        for there, here in _signed(size, edge):
            xp.multiply(along_z[part, here], phase[None, here, None], out=padded[:, there])
        along_y = fft.ifft(padded, axis=1, overwrite_x=True)[:, :box] * scaled
        real = fft.irfft(along_y, n=size, axis=2)[:, :, :box]
        if inverse is None:
            volume[part] = real
        else:
            xp.multiply(real, (inverse[part, None] * inverse)[:, :, None] * inverse, out=volume[part])

    bytes_each = size * (edge + 1) * 8
    _share_out(z, 2 * edge + 1, bytes_each, xp, threads)
    _share_out(y_and_x, box, bytes_each, xp, threads)
    return volume


def gridding_profile(box: int, padding: int = 2) -> np.ndarray:
    """Return sinc²(x / (padding box)) for every voxel position x along one axis, float32 ``[box]``.

    Trilinear interpolation in Fourier space multiplies the real-space map by the product of this profile over the three
    axes. This product is the exact transform of the kernel; the radial form that is often used is an approximation.
    """
    position = np.arange(box) - box // 2
    return (np.sinc(position / (padding * box)) ** 2).astype(np.float32)


def correct_gridding(volume: Any, padding: int = 2) -> Any:
    """Return ``volume`` divided by the transform of the trilinear kernel (separable sinc²), float32, same shape."""
    xp, _ = _modules(volume)
    inverse = xp.asarray(1 / gridding_profile(volume.shape[-1], padding))
    return volume * inverse[:, None, None] * inverse[None, :, None] * inverse[None, None, :]


def check_cube(shape: tuple[int, ...], radius: int, padding: int) -> int:
    """Return the box of a cube of even edge, if ``radius`` and ``padding`` fit. Otherwise raise an `InputError`."""
    if len(shape) != 3 or len(set(shape)) != 1 or shape[0] % 2 or shape[0] < 4:
        raise InputError(
            f"a volume must be a cube of even edge, not of shape {tuple(shape)}. Crop or resample it (resize_volume)."
        )
    box = int(shape[0])
    if not 1 <= radius <= box // 2 - 1:
        raise InputError(
            f"radius {radius} does not fit box {box}. It must be between 1 and {box // 2 - 1} Fourier pixels."
        )
    if padding < 1 or padding != int(padding):
        raise InputError(f"padding must be a whole number of at least 1, not {padding}")
    if 2 * cube_radius(radius, padding) > padding * box:
        raise InputError(
            f"radius {radius} at padding {padding} leaves no margin for interpolation in box {box}. Use padding 2."
        )
    return box


def _modules(array: Any) -> tuple[ModuleType, ModuleType]:
    xp = array_module(array)
    return xp, fft_module(xp)


def _share_out(work: Callable[[slice], None], length: int, bytes_each: int, xp: ModuleType, threads: int) -> None:
    """Call ``work`` for parts of ``range(length)``: small parts in several threads on the CPU, large parts on a GPU."""
    if xp is not np:
        for part in chunks(length, bytes_each):
            work(part)
        return
    with ThreadPoolExecutor(max(1, threads)) as pool:
        list(pool.map(work, chunks(length, bytes_each, _CACHE_BYTES)))


def _columns(part: slice, edge: int, reach: float) -> int:
    """Return how many columns kx of these rows ky of a half cube begin within ``reach`` of the origin."""
    nearest = 0 if part.start <= edge < part.stop else min(abs(part.start - edge), abs(part.stop - 1 - edge))
    return min(edge + 1, math.isqrt(math.floor(reach**2 - nearest**2)) + 1) if nearest <= reach else 0


def _phases(xp: ModuleType, size: int, edge: int, centre: int) -> Any:
    """Return exp(+2πi k centre/size), k = -edge..edge. It moves the origin of a forward transform to ``centre``."""
    turns = np.arange(-edge, edge + 1) * centre % size / size
    return xp.asarray(np.exp(2j * np.pi * turns).astype(np.complex64))


def _signed(size: int, edge: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the places of frequencies -edge..-1 and 0..edge in an FFT of ``size`` and in the centred order."""
    return (slice(size - edge, size), slice(0, edge)), (slice(0, edge + 1), slice(edge, 2 * edge + 1))


def chunks(length: int, bytes_each: int, limit: int = _CHUNK_BYTES) -> list[slice]:
    """Divide ``range(length)`` into slices of at most ``limit`` bytes at ``bytes_each`` bytes per entry."""
    step = max(1, limit // max(1, bytes_each))
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
