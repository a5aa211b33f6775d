"""Fourier transforms of centred images and volumes, their frequency grids, resampling and shifting.

The centre of an image is pixel ``n // 2`` on every axis (``docs/conventions.md``). The phases of a spectrum refer to it.
Images have orthonormal spectra: White noise of sd 1 gives real and imaginary parts of variance 0.5 each. A volume's
spectrum is scaled such that its central slice is the orthonormal spectrum of its projection (the sum over voxels).
Results are float32 or complex64. Arrays may be NumPy or CuPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module, fft_module, fft_workers
from cryopipe.imaging.fourier_pixels import FourierPixels, half_plane
from cryopipe.imaging.frequencies import frequency_grid, friedel_weight, radial_frequency, shell_index

__all__ = [
    "FourierPixels",
    "cube_box",
    "frequency_grid",
    "friedel_weight",
    "half_plane",
    "irfft2_centred",
    "irfftn_centred",
    "radial_frequency",
    "resample",
    "rfft2_centred",
    "rfftn_centred",
    "shell_index",
    "shift_images",
    "shift_volume",
]


def rfft2_centred(images: Any, *, threads: int = 1) -> Any:
    """Return the orthonormal half spectrum ``[..., y, x // 2 + 1]`` complex64 of real ``images`` ``[..., y, x]``."""
    xp = array_module(images)
    shifted = xp.fft.ifftshift(xp.asarray(images, dtype=xp.float32), axes=(-2, -1))
    spectrum = fft_module(xp).rfft2(shifted, norm="ortho", **fft_workers(xp, threads))
    return spectrum.astype(xp.complex64, copy=False)


def irfft2_centred(spectrum: Any, shape: tuple[int, int], *, threads: int = 1) -> Any:
    """Return the real images ``[..., y, x]`` float32 of ``shape = (y, x)``. The inverse of :func:`rfft2_centred`."""
    xp = array_module(spectrum)
    images = fft_module(xp).irfft2(spectrum, s=shape, norm="ortho", **fft_workers(xp, threads))
    return xp.fft.fftshift(images.astype(xp.float32, copy=False), axes=(-2, -1))


def rfftn_centred(volume: Any, *, threads: int = 1) -> Any:
    """Return the half spectrum ``[z, y, x // 2 + 1]`` complex64 of a cubic real volume ``[z, y, x]``.

    It is ``rfftn`` divided by the box length, so that the central slice of a map is the spectrum that
    :func:`rfft2_centred` gives for the map's projection.

    Raises
    ------
    InputError
        The volume is not a cube.
    """
    xp = array_module(volume)
    box = cube_box(volume)
    shifted = xp.fft.ifftshift(xp.asarray(volume, dtype=xp.float32))
    spectrum = fft_module(xp).rfftn(shifted, **fft_workers(xp, threads)).astype(xp.complex64, copy=False)
    spectrum *= xp.float32(1.0 / box)
    return spectrum


def irfftn_centred(spectrum: Any, box: int, *, threads: int = 1) -> Any:
    """Return the real volume ``[box, box, box]`` float32. The inverse of :func:`rfftn_centred`."""
    xp = array_module(spectrum)
    volume = (
        fft_module(xp).irfftn(spectrum, s=(box, box, box), **fft_workers(xp, threads)).astype(xp.float32, copy=False)
    )
    volume *= xp.float32(box)
    return xp.fft.fftshift(volume)


def cube_box(volume: Any) -> int:
    """Return the box length of a cubic volume, or raise an `InputError` that states its shape."""
    if volume.ndim != 3 or len(set(volume.shape)) != 1:
        raise InputError(
            f"a volume must be a cube [z, y, x]; this one has shape {tuple(volume.shape)}. Pad or crop it to a cube."
        )
    return int(volume.shape[0])


def resample(images: Any, new_shape: Sequence[int], *, centred: bool = False, threads: int = 1) -> Any:
    """Change the sampling by cropping or padding the Fourier transform. The mean grey value is kept.

    Parameters
    ----------
    images : array ``[..., y, x]`` (or ``[..., z, y, x]``)
        Real. The last ``len(new_shape)`` axes are resampled.
    new_shape : sequence of int
        Two or three new lengths.
    centred : bool
        False: pixel 0 stays pixel 0, and a coordinate x becomes ``x · new / old`` (micrographs). True: pixel ``n // 2``
        becomes pixel ``new // 2`` (particles and volumes). For even old and new lengths both are the same.

    Returns
    -------
    array ``[..., *new_shape]`` float32

    Notes
    -----
    Terms at plus and minus the Nyquist frequency are added when cropping and halved when padding. Padding followed by
    cropping therefore gives the original image.
    """
    xp = array_module(images)
    fft = fft_module(xp)
    axes = tuple(range(-len(new_shape), 0))
    old_shape = tuple(int(images.shape[a]) for a in axes)
    if images.ndim < len(new_shape) or min(new_shape) < 1:
        raise InputError(f"an array of shape {tuple(images.shape)} cannot be resampled to {tuple(new_shape)}")
    spectrum = fft.rfftn(xp.asarray(images, dtype=xp.float32), axes=axes, **fft_workers(xp, threads)).astype(
        xp.complex64, copy=False
    )
    if centred:
        spectrum = spectrum * _centre_ramp(xp, old_shape, +1)
    for axis, old, new in zip(axes[:-1], old_shape[:-1], new_shape[:-1], strict=True):
        spectrum = _resample_full_axis(xp, spectrum, axis, old, new)
    spectrum = _resample_half_axis(xp, spectrum, old_shape[-1], new_shape[-1])
    if centred:
        spectrum = spectrum * _centre_ramp(xp, tuple(new_shape), -1)
    result = fft.irfftn(spectrum, s=tuple(new_shape), axes=axes, **fft_workers(xp, threads)).astype(
        xp.float32, copy=False
    )
    result *= xp.float32(math.prod(new_shape) / math.prod(old_shape))
    return result


def _centre_ramp(xp: Any, shape: Sequence[int], sign: int) -> Any:
    """Return exp(sign · 2πi Σ k · (n // 2)) over the half spectrum. It moves the phase origin to the centre."""
    turns = sum(k * (n // 2) for k, n in zip(frequency_grid(shape), reversed(tuple(shape)), strict=True))
    return xp.asarray(np.exp(sign * 2j * np.pi * np.asarray(turns)).astype(np.complex64))


def _resample_full_axis(xp: Any, spectrum: Any, axis: int, old: int, new: int) -> Any:
    """Crop or pad one axis in full (plus and minus frequencies) layout."""
    if new == old:
        return spectrum
    keep = min(old, new)
    source = xp.moveaxis(spectrum, axis, 0)
    result = xp.zeros((new, *source.shape[1:]), dtype=source.dtype)
    positive = (keep + 1) // 2
    negative = keep // 2
    result[:positive] = source[:positive]
    result[new - negative :] = source[old - negative :]
    if keep % 2 == 0:
        half = keep // 2
        if new < old:
            result[half] += source[half]
        else:
            result[new - half] *= 0.5
            result[half] = result[new - half]
    return xp.moveaxis(result, 0, axis)


def _resample_half_axis(xp: Any, spectrum: Any, old: int, new: int) -> Any:
    """Crop or pad the last axis, on which only frequencies from zero up are stored."""
    if new == old:
        return spectrum
    keep = min(old, new)
    columns = keep // 2 + 1
    result = xp.zeros((*spectrum.shape[:-1], new // 2 + 1), dtype=spectrum.dtype)
    result[..., :columns] = spectrum[..., :columns]
    if keep % 2 == 0:
        # The inverse real transform counts a Nyquist column once and any other column twice.
        result[..., keep // 2] *= 2.0 if new < old else 0.5
    return result


def full_plane(half: np.ndarray) -> np.ndarray:
    """Return the whole plane ``[n, n]``, n even, of an even function given on its half ``[n, n // 2 + 1]``.

    Frequency 0 is at ``[0, 0]`` in both. Examples of even functions are amplitudes and powers of real images.
    """
    n = half.shape[0]
    mates = np.roll(half[::-1], 1, axis=0)[:, n // 2 - 1 : 0 : -1]
    return np.concatenate([half, mates], axis=1)


def shift_images(images: Any, shifts_xy_px: Any, *, threads: int = 1) -> Any:
    """Move the content of images by ``+shift`` pixels (periodically, sub-pixel exact): FT times exp(-2πi k·t).

    Parameters
    ----------
    images : array ``[y, x]`` or ``[n, y, x]``
        Real.
    shifts_xy_px : array ``[2]`` or ``[n, 2]``
        (x, y) in pixels. Content at (cx, cy) goes to (cx + x, cy + y).

    Returns
    -------
    array of the shape of ``images``, float32
    """
    xp = array_module(images)
    shifts = np.asarray(shifts_xy_px, dtype=np.float64)
    if shifts.shape[-1] != 2 or shifts.shape[:-1] not in ((), images.shape[:-2]):
        raise InputError(
            f"shifts of shape {shifts.shape} do not fit images of shape {tuple(images.shape)}. Give [2] or [n, 2]."
        )
    return _shift(xp, images, shifts, threads)


def shift_volume(volume: Any, shift_xyz_px: Any, *, threads: int = 1) -> Any:
    """Move the content of a volume ``[z, y, x]`` by ``+shift`` (x, y, z) pixels; see :func:`shift_images`."""
    xp = array_module(volume)
    shift = np.asarray(shift_xyz_px, dtype=np.float64)
    if shift.shape != (3,) or volume.ndim != 3:
        raise InputError(
            f"shift_volume needs a volume [z, y, x] and a shift [3], not shapes {tuple(volume.shape)} and {shift.shape}"
        )
    return _shift(xp, volume, shift, threads)


def _shift(xp: Any, data: Any, shifts: np.ndarray, threads: int) -> Any:
    dimensions = shifts.shape[-1]
    axes = tuple(range(-dimensions, 0))
    shape = tuple(int(data.shape[a]) for a in axes)
    fft = fft_module(xp)
    spectrum = fft.rfftn(xp.asarray(data, dtype=xp.float32), axes=axes, **fft_workers(xp, threads)).astype(
        xp.complex64, copy=False
    )
    lengths = [*shape[:-1], shape[-1] // 2 + 1]
    for position, (n, length) in enumerate(zip(shape, lengths, strict=True)):
        frequency = np.fft.rfftfreq(n) if position == dimensions - 1 else np.fft.fftfreq(n)
        ramp = np.exp(-2j * np.pi * shifts[..., dimensions - 1 - position, None] * frequency).astype(np.complex64)
        column = [1] * dimensions
        column[position] = length
        spectrum *= xp.asarray(ramp.reshape(*ramp.shape[:-1], *column))  # separable: one ramp per axis
    return fft.irfftn(spectrum, s=shape, axes=axes, **fft_workers(xp, threads)).astype(xp.float32, copy=False)
