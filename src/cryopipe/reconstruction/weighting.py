"""From images to what is inserted: C X exp(-2πi k·t/box) w/σ² and C² w/σ², in one pass over the data."""

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
        Which images, in which order.
    shifts_px : ndarray float64 [b, 2]
        (x, y) that centre them.
    inverse_sigma2 : ndarray float32 [b, radius + 1]
        1/σ² by shell of each.
    weights : ndarray float32 [b, 1], [b, radius + 1] or [b, K]
        Factor on an image, on its shells or on its pixels.
    order : ndarray int64 [K], optional
        Fourier pixels in the order in which they are wanted; that of the images by default.
    like : array, optional
        Where the results are wanted, NumPy or CuPy; images of the host are moved there. By default where the images are.

    Returns
    -------
    values : complex64 [b, K]
    information : float32 [b, K]

    Raises
    ------
    InputError
        An image or its CTF holds NaN or infinity.
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
            f"image {int(rows[np.flatnonzero(~finite)[0]]) + 1} of {len(images)} or its CTF holds NaN or infinite "
            f"values ({int((~finite).sum())} such images in this batch): remove these particles or extract them again"
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
        Their poses.
    inverse_sigma2 : ndarray [radius + 1] or [g, radius + 1]
        1/σ² by shell.
    weights : ndarray [n], [n, radius + 1] or [n, K], optional
        Factors on the images' contributions.
    noise_group : ndarray int [n], optional
        Row of ``inverse_sigma2`` of each image.

    Raises
    ------
    InputError
        Shapes do not fit, or values are not finite or negative.
    """
    n, radius, n_pixels = len(images), images.pixels.radius, len(images.pixels)
    if np.shape(rotations) != (n, 3, 3) or shifts_px.shape != (n, 2):
        raise InputError(
            f"{n} images with rotations {np.shape(rotations)} and shifts {shifts_px.shape}: one pose each is needed"
        )
    poses_finite = np.isfinite(shifts_px).all(axis=1) & np.isfinite(rotations).all(axis=(1, 2))
    if not poses_finite.all():
        bad = int(np.flatnonzero(~poses_finite)[0])
        raise InputError(f"image {bad + 1} has the shift {shifts_px[bad]} px or a pose that is not finite: remove it")
    table = np.atleast_2d(np.asarray(inverse_sigma2, np.float32))[:, : radius + 1]
    if table.shape[1] < radius + 1 or not np.isfinite(table[:, 1:]).all() or (table[:, 1:] < 0).any():
        raise InputError(
            f"inverse noise variances of shape {np.shape(inverse_sigma2)}: finite values, none negative, up to shell "
            f"{radius} are needed"
        )
    table = np.nan_to_num(table)  # shell 0 takes no part
    group = np.zeros(n, np.int64) if noise_group is None else np.asarray(noise_group, np.int64)
    if group.shape != (n,) or (n and (group.min() < 0 or group.max() >= len(table))):
        raise InputError(f"noise groups of shape {group.shape}: each of {n} images needs one of {len(table)}")
    factor = np.ones(n, np.float32) if weights is None else np.asarray(weights, np.float32)
    factor = factor[:, None] if factor.ndim == 1 else factor
    if factor.shape not in ((n, 1), (n, radius + 1), (n, n_pixels)):
        raise InputError(
            f"weights of shape {factor.shape}: one for each of {n} images, or {radius + 1} (a shell) or "
            f"{n_pixels} (a pixel) for each, are needed"
        )
    if not np.isfinite(factor).all() or (factor < 0).any():
        bad = int(np.flatnonzero((~np.isfinite(factor) | (factor < 0)).any(axis=1))[0])
        raise InputError(
            f"image {bad + 1} has a weight that is negative or not finite ({factor[bad].min()}): weights count "
            "information and start at 0; use 0 to leave an image out"
        )
    return table, group, np.ascontiguousarray(factor)


def b_factor_weights(b_factors_A2: np.ndarray, radius: int, *, box: int, pixel_size_A: float) -> np.ndarray:
    """Return exp(-B s²/4) by shell for images whose signal falls off in this way beyond their CTF: ``[n, radius + 1]``.

    The envelope of amplitudes (Rosenthal & Henderson 2003, doi:10.1016/j.jmb.2003.07.013) is also the weight that gives
    the sum of such images the best signal-to-noise ratio. float32, for ``weights`` of
    `cryopipe.reconstruction.reconstruct.Reconstruction.insert`. Where the CTF holds the envelope already, no weight is
    needed.

    Parameters
    ----------
    b_factors_A2 : ndarray [n]
        B of each image relative to the best, Å².
    radius : int
        Outermost shell.
    box : int
    pixel_size_A : float

    Raises
    ------
    InputError
        B is negative or not finite: weights beyond 1 would grow without limit towards Nyquist.
    """
    values = np.asarray(b_factors_A2, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all() or (values.size and values.min() < 0):
        raise InputError(
            f"B factors of shape {values.shape} from {values.min() if values.size else 'none'}: one finite number per "
            "image, not negative, relative to the best image, is needed"
        )
    frequency = np.arange(radius + 1) / (box * pixel_size_A)
    return np.exp(-0.25 * values[:, None] * frequency**2).astype(np.float32)
