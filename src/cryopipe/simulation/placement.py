"""Places of particles: dense as in a good micrograph, with touching neighbours, but neither overlapping nor cut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

#: Largest number of steps of the repulsion. The presets need fewer than 200 (measured). Where the hole of a carbon film has
#: no room for all particles, no number would do, and those that are still in conflict are left out.
_RELAXATIONS = 3000


def place_particles(
    rng: np.random.Generator,
    *,
    count: int,
    size_px: tuple[float, float],
    distance_px: float,
    forbidden: NDArray[np.float64],
    inside: tuple[float, float, float] | None = None,
) -> NDArray[np.float64]:
    """Draw places for up to ``count`` particles.

    Random places in a wider field are pushed apart until no two are closer than ``distance_px``. This over-damped
    repulsion packs more densely than placing one after the other, which jams at 55 % coverage. Particles that the border
    would cut and those that cannot get free are left out. The number in the wider field is such that about ``count``
    remain.

    Parameters
    ----------
    rng : Generator
        The movie's random numbers.
    count : int
        Number wanted; never exceeded.
    size_px : (float, float)
        Width and height of the frame.
    distance_px : float
        Least distance of two centres.
    forbidden : float64 [m, 3 (x, y, radius)]
        Discs in pixels. Particles stay half ``distance_px`` away from them.
    inside : (x, y, radius), optional
        A disc in pixels (the hole of a carbon film). Particles stay in it, half ``distance_px`` away from its rim.

    Returns
    -------
    float64 [n, 2 (x, y)]
        In random order, n <= count.
    """
    size = np.asarray(size_px, np.float64)
    low, high = np.full(2, distance_px / 2), size - 1 - distance_px / 2
    if np.any(high <= low):
        return np.empty((0, 2))
    wide = int(np.ceil(count * np.prod(size + 2 * distance_px) / np.prod(high - low)))
    places = rng.uniform(-distance_px, size + distance_px, (wide, 2))
    # particles that start on an obstacle would crowd around it
    places = places[~_blocked(places, forbidden, inside, distance_px / 4)]
    for _ in range(_RELAXATIONS):
        push = _repulsion(places, distance_px) + _out_of(places, forbidden, distance_px / 2)
        push += _into(places, inside, distance_px / 2)
        if not push.any():
            break
        # push a little beyond contact, or the last overlaps would shrink without ever vanishing
        places = np.clip(places + 0.51 * push, -distance_px, size + distance_px)
    places = places[((places >= low) & (places <= high)).all(axis=1)]
    places = places[~_blocked(places, forbidden, inside, distance_px / 2 - 1e-6)]
    return places[_without_conflict(places, distance_px)][:count]


def _repulsion(places: NDArray[np.float64], distance_px: float) -> NDArray[np.float64]:
    push = np.zeros_like(places)
    pairs = cKDTree(places).query_pairs(distance_px, output_type="ndarray")
    if len(pairs):
        between = places[pairs[:, 0]] - places[pairs[:, 1]]
        length = np.maximum(np.hypot(*between.T), 1e-9)
        step = between * ((distance_px * 1.002 - length) / length)[:, None]
        np.add.at(push, pairs[:, 0], step)
        np.add.at(push, pairs[:, 1], -step)
    return push


def _out_of(places: NDArray[np.float64], forbidden: NDArray[np.float64], margin: float) -> NDArray[np.float64]:
    push = np.zeros_like(places)
    for x, y, radius in forbidden:
        away = places - (x, y)
        length = np.maximum(np.hypot(*away.T), 1e-9)
        missing = np.maximum(radius + margin - length, 0)
        # a fixed speed: from deep inside a large disc a particle walks out instead of jumping over its neighbours
        push += away / length[:, None] * np.minimum(2 * missing, margin / 4)[:, None]
    return push


def _into(places: NDArray[np.float64], inside: tuple[float, float, float] | None, margin: float) -> NDArray[np.float64]:
    if inside is None:
        return np.zeros_like(places)
    away = places - inside[:2]
    length = np.maximum(np.hypot(*away.T), 1e-9)
    beyond = np.maximum(length - (inside[2] - margin), 0)
    return -away / length[:, None] * np.minimum(2 * beyond, margin / 4)[:, None]


def _blocked(
    places: NDArray[np.float64],
    forbidden: NDArray[np.float64],
    inside: tuple[float, float, float] | None,
    margin: float,
) -> NDArray[np.bool_]:
    blocked = np.zeros(len(places), dtype=bool)
    for x, y, radius in forbidden:
        blocked |= np.hypot(*(places - (x, y)).T) < radius + margin
    if inside is not None:
        blocked |= np.hypot(*(places - inside[:2]).T) > inside[2] - margin
    return blocked


def _without_conflict(places: NDArray[np.float64], distance_px: float) -> NDArray[np.intp]:
    kept: list[int] = []
    for i, place in enumerate(places):
        if all(np.hypot(*(place - places[j])) >= distance_px - 1e-6 for j in kept):
            kept.append(i)
    return np.array(kept, dtype=np.intp)
