"""Soft masks: circles, spheres, soft edges of binary masks, and the solvent mask of a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from cryopipe.errors import InputError
from cryopipe.imaging.filters import low_pass
from cryopipe.imaging.fourier import cube_box


def cosine_edge(distance_px: Any, edge_px: float) -> Any:
    """Return 1 where ``distance_px`` <= 0, 0 beyond ``edge_px``, and half a cosine between them, float32."""
    if edge_px <= 0.0:
        return (np.asarray(distance_px) <= 0.0).astype(np.float32)
    position = np.clip(np.asarray(distance_px, dtype=np.float32) / np.float32(edge_px), 0.0, 1.0)
    return (0.5 + 0.5 * np.cos(np.float32(np.pi) * position)).astype(np.float32)


def radius_grid(shape: Sequence[int], *, centre: Sequence[float] | None = None) -> np.ndarray:
    """Return each pixel's distance in pixels from ``n // 2`` (or from ``centre``, in array order), float32."""
    centre = [n // 2 for n in shape] if centre is None else list(centre)
    total = np.zeros(tuple(shape), dtype=np.float32)
    for axis, (n, c) in enumerate(zip(shape, centre, strict=True)):
        column = [1] * len(shape)
        column[axis] = n
        total += np.square(np.arange(n, dtype=np.float32) - np.float32(c)).reshape(column)
    return np.sqrt(total)


def soft_circle(box: int, radius_px: float, *, edge_px: float = 5.0) -> np.ndarray:
    """Return ``[box, box]`` float32: 1 up to ``radius_px`` from the centre, cosine fall over ``edge_px``, 0 beyond."""
    return cosine_edge(radius_grid((box, box)) - np.float32(radius_px), edge_px)


def soft_sphere(box: int, radius_px: float, *, edge_px: float = 5.0) -> np.ndarray:
    """Return ``[box, box, box]`` float32: the three-dimensional :func:`soft_circle`."""
    return cosine_edge(radius_grid((box, box, box)) - np.float32(radius_px), edge_px)


def soft_edge(binary: np.ndarray, edge_px: float, *, extend_px: float = 0.0) -> np.ndarray:
    """Return a binary mask grown by ``extend_px``, with a cosine edge of ``edge_px`` outside, float32, 0 to 1."""
    mask = np.asarray(binary, dtype=bool)
    if not mask.any():
        return np.zeros(mask.shape, dtype=np.float32)
    distance = _distance_outside(mask, extend_px + edge_px)
    # The first voxel outside is at distance 1: half a voxel of it belongs to the border between the voxels.
    return cosine_edge(distance - np.float32(extend_px), edge_px)


def _distance_outside(mask: np.ndarray, reach_px: float) -> np.ndarray:
    """Return the Euclidean distance to the mask. It is computed only near the mask, where it is needed."""
    margin = int(np.ceil(reach_px)) + 2
    slices = tuple(
        slice(max(s.start - margin, 0), min(s.stop + margin, n))
        for s, n in zip(ndimage.find_objects(mask.astype(np.int8))[0], mask.shape, strict=True)
    )
    distance = np.full(mask.shape, np.float32(reach_px + 1.0), dtype=np.float32)
    distance[slices] = ndimage.distance_transform_edt(~mask[slices])
    return distance


def solvent_mask(
    volume: np.ndarray,
    pixel_size_A: float,
    *,
    low_pass_A: float = 15.0,
    threshold: float = 0.2,
    volume_A3: float | None = None,
    extend_A: float = 6.0,
    edge_A: float = 8.0,
    threads: int = 1,
) -> np.ndarray:
    """Return a soft mask around the density of a map, float32 ``[z, y, x]``.

    The map is low-pass filtered and thresholded. The largest connected piece is kept, grown by ``extend_A`` and given a
    cosine edge. Holes are not filled, because the cavity of a hollow particle is solvent.

    Parameters
    ----------
    volume : array ``[z, y, x]``
        Positive density, float32.
    pixel_size_A : float
        Å per voxel.
    low_pass_A : float
        Resolution of the map that is thresholded.
    threshold : float
        Fraction of the low-pass filtered map's 99.9 percentile (voxels within half a box of the centre), from 0 to 1.
    volume_A3 : float, optional
        The particle's volume in Å³ (1.21 Å³ per Da of protein). If it is given, the densest voxels that fill this
        volume are taken, and ``threshold`` is not used.
    extend_A, edge_A : float
        How far the mask reaches beyond the thresholded density, and over what length it falls from 1 to 0.

    Raises
    ------
    InputError
        The map contains NaN or is constant, or no voxel is above the threshold.
    """
    box = cube_box(volume)
    if not np.all(np.isfinite(volume)) or float(np.ptp(volume)) == 0.0:
        raise InputError(
            "the map is constant or contains NaN, therefore it has no solvent mask. Check the reconstruction."
        )
    smooth = low_pass(volume, pixel_size_A, max(low_pass_A, 2.5 * pixel_size_A), threads=threads)
    # The corners of the box have no particle, and in Fourier reconstructions they have the worst artefacts.
    inside = radius_grid(volume.shape) < box // 2
    level = _level(smooth[inside], pixel_size_A, threshold, volume_A3)
    binary = largest_component((smooth > level) & inside)
    if not binary.any():
        raise InputError(
            f"the low-pass filtered map has no density above {level:g}. Lower the mask threshold ({threshold:g})."
        )
    return soft_edge(binary, edge_A / pixel_size_A, extend_px=extend_A / pixel_size_A)


def _level(values: np.ndarray, pixel_size_A: float, threshold: float, volume_A3: float | None) -> float:
    if volume_A3 is None:
        if not 0.0 < threshold < 1.0:
            raise InputError(f"mask threshold {threshold:g} must lie between 0 and 1 (fraction of the 99.9 percentile)")
        return threshold * float(np.percentile(values, 99.9))
    voxels = round(volume_A3 / pixel_size_A**3)
    if not 0 < voxels < values.size:
        raise InputError(
            f"a particle of {volume_A3:g} Å³ has {voxels} voxels, but the map has {values.size}. Check the particle's "
            "volume and the pixel size."
        )
    return float(np.partition(values, values.size - voxels)[values.size - voxels])


def largest_component(binary: np.ndarray) -> np.ndarray:
    """Return the largest connected piece (faces touch) of a binary array. Of equal pieces it is the first."""
    labels, count = ndimage.label(binary)
    if count <= 1:
        return np.asarray(binary, dtype=bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == int(np.argmax(sizes))
