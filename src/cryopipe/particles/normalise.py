"""Normalisation of particle images: a background without slope, with mean 0 and standard deviation 1."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cryopipe.errors import InputError

#: Fewer background pixels than this do not determine a plane.
MIN_BACKGROUND = 50


def background_mask(box: int, radius_px: float) -> np.ndarray:
    """Return bool ``[box, box]``: pixels more than ``radius_px`` from the centre pixel ``box // 2``.

    Raises
    ------
    InputError
        Too few pixels remain.
    """
    axis = np.arange(box) - box // 2
    mask = np.hypot(axis[:, None], axis[None, :]) > radius_px
    if int(mask.sum()) < MIN_BACKGROUND:
        raise InputError(
            f"outside a radius of {radius_px:.1f} px a box of {box} has only {int(mask.sum())} pixels of background. "
            "Increase box_A or reduce background_diameter_A."
        )
    return mask


def normalise_images(
    images: np.ndarray, mask: np.ndarray, mode: Literal["ramp", "background", "image", "none"]
) -> np.ndarray:
    """Return normalised copies of ``images`` ``[n, y, x]``, float32.

    Parameters
    ----------
    mask : bool ``[y, x]``
        Background pixels.
    mode : {"ramp", "background", "image", "none"}
        ``ramp`` subtracts the least-squares plane of the background and divides by the sd of the background.
        ``background`` subtracts its mean instead. ``image`` uses all pixels.

    Raises
    ------
    InputError
        The background of an image has no variance.
    """
    if mode == "none" or len(images) == 0:
        return images.astype(np.float32, copy=True)
    size = images.shape[-1]
    flat = images.reshape(len(images), -1).astype(np.float64)
    pixels = np.arange(flat.shape[1]) if mode == "image" else np.flatnonzero(mask)
    axis = (np.arange(size) - size // 2) / size
    terms = [np.ones(size * size)]
    if mode == "ramp":
        terms += [np.tile(axis, size), np.repeat(axis, size)]
    basis = np.stack(terms, axis=1)  # [pixels, 1 or 3]
    solve = np.linalg.pinv(basis[pixels])
    flat -= (flat[:, pixels] @ solve.T) @ basis.T
    sd = flat[:, pixels].std(axis=1)
    if np.any(sd == 0):
        raise InputError(
            "the background of a particle image is constant, because the micrograph is blank there. Exclude the micrograph."
        )
    flat /= sd[:, None]
    return flat.reshape(images.shape).astype(np.float32)
