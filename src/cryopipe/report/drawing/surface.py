"""A shaded picture of a map's isosurface, made by parallel rays through the density, without display or mesh."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

#: Light from the upper left in front, as usual in pictures (x right, y down, z away from the viewer).
LIGHT = np.array([-0.45, -0.55, -0.7]) / np.linalg.norm([-0.45, -0.55, -0.7])


def render_surface(
    volume: NDArray[np.float32],
    *,
    threshold: float,
    size: int = 500,
    view_deg: tuple[float, float] = (25.0, 20.0),
    colour_radii: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """Render the surface ``volume == threshold`` seen along a tilted z axis, orthographically.

    Parameters
    ----------
    volume : float32 [z, y, x]
        Density, particle positive.
    threshold : float
        Contour level in the units of the map.
    size : int
        Side of the square picture in pixels.
    view_deg : (float, float)
        Rotation about y, then about x, because a view along a symmetry axis hides depth.
    colour_radii : (float, float), optional
        Radii in voxels of the two ends of the colour scale. Default: the 2nd and 98th percentile of the surface.

    Returns
    -------
    uint8 [size, size, 3]
        RGB; white where no ray meets the surface.
    """
    extent = _extent(volume, threshold)
    rotation = _rotation(*view_deg)
    centre = (np.array(volume.shape) // 2).astype(np.float64)
    step = 2 * extent / size
    axis = (np.arange(size) - size / 2 + 0.5) * step
    y, x = np.meshgrid(axis, axis, indexing="ij")
    depth = np.full((size, size), np.nan)
    before = np.full((size, size), -np.inf)
    for z in axis:
        open_rays = np.isnan(depth)
        if not open_rays.any():
            break
        points = np.stack([np.full(open_rays.sum(), z), y[open_rays], x[open_rays]])  # [3 (z, y, x), rays]
        value = ndimage.map_coordinates(volume, rotation @ points + centre[:, None], order=1, mode="constant")
        last = before[open_rays]
        hit = value >= threshold
        # linear interpolation between the two samples that enclose the level
        fraction = np.where(np.isfinite(last), (value - threshold) / np.maximum(value - last, 1e-12), 0.0)
        depth[open_rays] = np.where(hit, z - step * fraction, np.nan)
        before[open_rays] = value
    return _shade(volume, rotation, centre, x, y, depth, colour_radii)


def _shade(
    volume: NDArray[np.float32],
    rotation: NDArray[np.float64],
    centre: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    depth: NDArray[np.float64],
    colour_radii: tuple[float, float] | None,
) -> NDArray[np.uint8]:
    from matplotlib import colormaps

    picture = np.ones((*depth.shape, 3))
    met = ~np.isnan(depth)
    if met.any():
        seen = rotation @ np.stack([depth[met], y[met], x[met]])  # [3, hits] in map axes
        smooth = ndimage.gaussian_filter(volume, 0.7)
        gradient = np.stack([ndimage.map_coordinates(g, seen + centre[:, None], order=1) for g in np.gradient(smooth)])
        normal = rotation.T @ -gradient
        normal /= np.maximum(np.linalg.norm(normal, axis=0), 1e-12)
        lambert = np.clip(normal[2] * LIGHT[0] + normal[1] * LIGHT[1] + normal[0] * LIGHT[2], 0, 1)
        radius = np.linalg.norm(seen, axis=0)
        low, high = colour_radii or tuple(np.percentile(radius, [2, 98]))
        base = colormaps["viridis"](np.clip((radius - low) / max(high - low, 1e-6), 0, 1))[:, :3]
        near = 1 - 0.45 * (depth[met] - depth[met].min()) / max(np.ptp(depth[met]), 1e-6)
        picture[met] = base * ((0.25 + 0.75 * lambert) * near)[:, None]
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _extent(volume: NDArray[np.float32], threshold: float) -> float:
    inside = np.argwhere(volume >= threshold)
    if not len(inside):
        return volume.shape[0] / 2
    reach = np.linalg.norm(inside - np.array(volume.shape) // 2, axis=1)
    # the 99.9th percentile, because specks of noise in the corners must not make the particle smaller
    return float(min(np.percentile(reach, 99.9) * 1.08 + 2, volume.shape[0] / 2 * 1.2))


def _rotation(about_y_deg: float, about_x_deg: float) -> NDArray[np.float64]:
    a, b = np.radians([about_y_deg, about_x_deg])
    about_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])  # acts on (z, y, x)
    about_x = np.array([[np.cos(b), np.sin(b), 0], [-np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return np.asarray(about_y @ about_x, dtype=np.float64)
