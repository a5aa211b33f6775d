"""Values and weights of images for insertion, C X exp(-2πi k·t/box) w/σ² and C² w/σ², in one pass over the data."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module
from cryopipe.kernels.spectra.weighting import weigh
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.phases import separable_ramps


def weighted_images(
    images: ParticleSpectra,
    rows: np.ndarray,
    shifts_px: np.ndarray,
    inverse_sigma2: np.ndarray,
    weights: np.ndarray,
    order: np.ndarray | None = None,
    *,
    like: Any = None,
) -> tuple[Any, Any]:
    """Return the values and weights of images for insertion.

    Parameters
    ----------
    images : ParticleSpectra
    rows : ndarray int64 [b]
        Indices of the images, in the order of the result.
    shifts_px : ndarray float64 [b, 2]
        (x, y) that centre the images.
    inverse_sigma2 : ndarray float32 [b, radius + 1]
        1/σ² by shell for each image.
    weights : ndarray float32 [b, 1], [b, radius + 1] or [b, K]
        Factor of an image, of its shells or of its pixels.
    order : ndarray int64 [K], optional
        Order of the Fourier pixels in the result. The default is that of the images.
    like : array, optional
        An array on the device of the result, NumPy or CuPy. Images of the host are moved there. The default is the device of
        the images.

    Returns
    -------
    values : complex64 [b, K]
    information : float32 [b, K]

    Raises
    ------
    InputError
        An image or its CTF has NaN or infinity.
    """
    there = array_module(images.values, images.ctf)
    xp = there if like is None else array_module(like)
    n_pixels = len(images.pixels)
    by_pixel = weights.shape[1] == n_pixels
    by_shell = inverse_sigma2 if by_pixel else inverse_sigma2 * weights
    if xp is np:
        values, information, finite = weigh(
            images.values,
            images.ctf,
            rows,
            turns=np.asarray(shifts_px, np.float64) / images.box,
            by_shell=np.ascontiguousarray(by_shell, np.float32),
            by_pixel=weights if by_pixel else None,
            pixels=(images.pixels.kx, images.pixels.ky, images.pixels.shell),
            order=np.arange(n_pixels) if order is None else order,
        )
    else:
        part = there.asarray(rows)
        ctf = xp.asarray(images.ctf[part])
        factor = ctf * xp.asarray(by_shell, np.float32)[:, xp.asarray(images.pixels.shell)]
        if by_pixel:
            factor *= xp.asarray(weights)
        values = xp.asarray(images.values[part]) * separable_ramps(images.pixels, shifts_px, xp)
        values *= factor
        information = factor * ctf
        if order is not None:
            values, information = values[:, xp.asarray(order)], information[:, xp.asarray(order)]
        finite = xp.asnumpy(xp.isfinite(values).all(axis=1) & xp.isfinite(information).all(axis=1))
    if not finite.all():
        raise InputError(
            f"image {int(rows[np.flatnonzero(~finite)[0]]) + 1} of {len(images)} or its CTF has NaN or infinite "
            f"values ({int((~finite).sum())} such images in this batch). Remove these particles, or extract them again."
        )
    return values, information


def checked_inputs(
    images: ParticleSpectra,
    rotations: np.ndarray,
    shifts_px: np.ndarray,
    inverse_sigma2: np.ndarray,
    weights: np.ndarray | None,
    noise_group: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return 1/σ² [g, radius + 1], the group of each image and its weights [n, 1 or radius + 1 or K].

    The arguments are those of `cryopipe.reconstruction.reconstruct.Reconstruction.insert`.

    Parameters
    ----------
    images : ParticleSpectra
        n images.
    rotations, shifts_px : ndarray [n, 3, 3], [n, 2]
        Poses of the images.
    inverse_sigma2 : ndarray [radius + 1] or [g, radius + 1]
        1/σ² by shell.
    weights : ndarray [n], [n, radius + 1] or [n, K], optional
        Factors of the contributions of the images.
    noise_group : ndarray int [n], optional
        Row of ``inverse_sigma2`` of each image.

    Raises
    ------
    InputError
        Shapes are wrong, or values are not finite or are negative.
    """
    n, radius, n_pixels = len(images), images.pixels.radius, len(images.pixels)
    if np.shape(rotations) != (n, 3, 3) or shifts_px.shape != (n, 2):
        raise InputError(
            f"there are {n} images, but rotations {np.shape(rotations)} and shifts {shifts_px.shape}. Give one pose for each."
        )
    poses_finite = np.isfinite(shifts_px).all(axis=1) & np.isfinite(rotations).all(axis=(1, 2))
    if not poses_finite.all():
        bad = int(np.flatnonzero(~poses_finite)[0])
        raise InputError(f"image {bad + 1} has the shift {shifts_px[bad]} px or a pose that is not finite. Remove it.")
    table = np.atleast_2d(np.asarray(inverse_sigma2, np.float32))[:, : radius + 1]
    if table.shape[1] < radius + 1 or not np.isfinite(table[:, 1:]).all() or (table[:, 1:] < 0).any():
        raise InputError(
            f"the inverse noise variances have the shape {np.shape(inverse_sigma2)}. Give finite values, none negative, up to "
            f"shell {radius}."
        )
    table = np.nan_to_num(table)  # shell 0 is not used
    group = np.zeros(n, np.int64) if noise_group is None else np.asarray(noise_group, np.int64)
    if group.shape != (n,) or (n and (group.min() < 0 or group.max() >= len(table))):
        raise InputError(
            f"the noise groups have the shape {group.shape}. Give one of {len(table)} for each of {n} images."
        )
    factor = np.ones(n, np.float32) if weights is None else np.asarray(weights, np.float32)
    factor = factor[:, None] if factor.ndim == 1 else factor
    if factor.shape not in ((n, 1), (n, radius + 1), (n, n_pixels)):
        raise InputError(
            f"the weights have the shape {factor.shape}. Give one for each of {n} images, or {radius + 1} (one per shell) or "
            f"{n_pixels} (one per pixel) for each."
        )
    if not np.isfinite(factor).all() or (factor < 0).any():
        bad = int(np.flatnonzero((~np.isfinite(factor) | (factor < 0)).any(axis=1))[0])
        raise InputError(
            f"image {bad + 1} has a weight that is negative or not finite ({factor[bad].min()}). Give weights of at least 0; "
            "0 leaves an image out."
        )
    return table, group, np.ascontiguousarray(factor)


def b_factor_weights(b_factors_A2: np.ndarray, radius: int, *, box: int, pixel_size_A: float) -> np.ndarray:
    """Return exp(-B s²/4) by shell for images whose signal falls off like this in addition to their CTF: ``[n, radius + 1]``.

    The envelope of amplitudes (Rosenthal & Henderson 2003, doi:10.1016/j.jmb.2003.07.013) is also the weight that gives the
    sum of such images the best signal-to-noise ratio. The result (float32) is for ``weights`` of
    `cryopipe.reconstruction.reconstruct.Reconstruction.insert`. If the CTF already includes the envelope, no weight is needed.

    Parameters
    ----------
    b_factors_A2 : ndarray [n]
        B of each image relative to the best image, Å².
    radius : int
        Outermost shell.
    box : int
    pixel_size_A : float

    Raises
    ------
    InputError
        B is negative or not finite. Weights above 1 would grow without limit towards Nyquist.
    """
    values = np.asarray(b_factors_A2, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all() or (values.size and values.min() < 0):
        raise InputError(
            f"the B factors have shape {values.shape} and least value {values.min() if values.size else 'none'}. Give one "
            "finite number per image, not negative, relative to the best image."
        )
    frequency = np.arange(radius + 1) / (box * pixel_size_A)
    return np.exp(-0.25 * values[:, None] * frequency**2).astype(np.float32)
