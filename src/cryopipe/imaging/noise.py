"""Radial noise spectra: sigma2[shell] is the variance of EACH of real and imaginary part of an orthonormal spectrum.

White noise of sd 1 has sigma2 = 0.5 in every shell. The log-likelihood of an image X given its model C·Y is then
``-Σ |X - C·Y|² / (2 sigma2)`` over the independent half plane.

References
----------
Scheres 2012, doi:10.1016/j.jsb.2012.09.006.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module, fft_module, fft_workers, to_numpy
from cryopipe.imaging.frequencies import friedel_weight, shell_index
from cryopipe.imaging.masks import soft_circle


def radial_power(images: Any, *, workers: int = 1) -> np.ndarray:
    """Return the mean |F|² (orthonormal) per ring of images ``[..., y, x]``: float64 ``[..., n // 2 + 1]``."""
    xp = array_module(images)
    shape = (int(images.shape[-2]), int(images.shape[-1]))
    spectrum = fft_module(xp).rfft2(xp.asarray(images, dtype=xp.float32), norm="ortho", **fft_workers(xp, workers))
    power = to_numpy(xp.square(spectrum.real) + xp.square(spectrum.imag))
    count = max(shape) // 2 + 1
    rings = shell_index(shape).ravel()
    weight = np.broadcast_to(friedel_weight(shape), power.shape[-2:]).ravel()
    members = np.bincount(rings, weight, minlength=count)[:count]
    flat = power.reshape(-1, rings.size)
    sums = (
        np.stack([np.bincount(rings, weight * row, minlength=count)[:count] for row in flat])
        if len(flat)
        else np.zeros((0, count))
    )
    return (sums / members).reshape(*power.shape[:-2], count)


def noise_spectrum(images: Any, *, workers: int = 1, chunk: int = 256) -> np.ndarray:
    """Return sigma2 ``[n // 2 + 1]`` float64 of images that hold only noise ``[n, y, x]`` (or one image)."""
    return 0.5 * _mean_power(_as_stack(images), None, workers, chunk)


def background_noise_spectrum(
    images: Any, particle_radius_px: float, *, edge_px: float = 5.0, workers: int = 1, chunk: int = 256
) -> np.ndarray:
    """Return sigma2 ``[n // 2 + 1]`` float64 of particle images, measured outside the particle's circle.

    The particle is masked out softly, the mean of the rest is taken off, and the power is scaled up by the share of the
    image that is left.

    Parameters
    ----------
    images : array ``[n, y, x]`` or ``[y, x]``
        Square images.
    particle_radius_px : float
        What lies nearer to the centre is left out.

    Raises
    ------
    InputError
        Less than 5 % of the image lies outside the circle.

    Notes
    -----
    The mask blurs the spectrum over some ``n / (n - 2 radius)`` rings; sharp peaks come out lower and broader.
    """
    stack = _as_stack(images)
    box = int(stack.shape[-1])
    window = 1.0 - soft_circle(box, particle_radius_px, edge_px=edge_px)
    if float(np.mean(np.square(window))) < 0.05:
        raise InputError(
            f"a particle of radius {particle_radius_px:g} px leaves no background in a box of {box} px: "
            "extract with a larger box"
        )
    return 0.5 * _mean_power(stack, window, workers, chunk)


def _as_stack(images: Any) -> Any:
    if images.ndim not in (2, 3) or images.shape[-1] != images.shape[-2]:
        raise InputError(f"noise spectra need square images [n, y, x]; got shape {tuple(images.shape)}")
    if images.ndim == 3 and len(images) == 0:
        raise InputError("noise spectra need at least one image; the stack is empty")
    return images[None] if images.ndim == 2 else images


def _mean_power(stack: Any, window: np.ndarray | None, workers: int, chunk: int) -> np.ndarray:
    xp = array_module(stack)
    box = int(stack.shape[-1])
    weight = xp.ones((box, box), dtype=xp.float32) if window is None else xp.asarray(window)
    total = np.zeros(box // 2 + 1)
    for start in range(0, len(stack), chunk):
        part = xp.asarray(stack[start : start + chunk], dtype=xp.float32)
        mean = (part * weight).sum(axis=(-2, -1), keepdims=True) / weight.sum()
        total += radial_power((part - mean) * weight, workers=workers).sum(axis=0)
    power = total / (len(stack) * float(xp.mean(xp.square(weight))))
    power[0] = power[1]  # the mean was taken off: the zero frequency holds no noise any more
    return power
