"""Features of class averages that distinguish good ones from ferritin and junk."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cryopipe.imaging.filters import low_pass
from cryopipe.imaging.masks import radius_grid

#: Radii in particle diameters: the core, the ring of the shell, and the surroundings inside the mask of the averages.
CORE, RING, OUTSIDE = 0.18, (0.32, 0.46), (0.53, 0.60)
#: Features are measured on averages low-passed to this resolution, Å.
FEATURE_RESOLUTION_A = 15.0


def ring_and_core(average: np.ndarray, diameter_px: float) -> tuple[float, float]:
    """Return the mean density, relative to the surroundings, of the ring of the shell and of the centre of an average."""
    r = radius_grid(average.shape) / np.float32(diameter_px)
    outside = float(average[(r >= OUTSIDE[0]) & (r <= OUTSIDE[1])].mean())
    ring = float(average[(r > RING[0]) & (r < RING[1])].mean())
    return ring - outside, float(average[r < CORE].mean()) - outside


def core_ratio(average: np.ndarray, diameter_px: float) -> float:
    """Return the density of the centre over that of the ring, or 0 if the ring is empty.

    It is 0.62 for a hollow sphere (40 to 62 Å), 1.3 with a core of the same density, and about 3 for iron-loaded ferritin.
    """
    ring, core = ring_and_core(average, diameter_px)
    return core / ring if ring > 0 else 0.0


def signal(average: np.ndarray, diameter_px: float) -> float:
    """Return the contrast: mean inside the particle minus mean around it, over the standard deviation around it."""
    r = radius_grid(average.shape) / np.float32(diameter_px)
    around = average[(r >= OUTSIDE[0]) & (r <= OUTSIDE[1])]
    return float((average[r < 0.5].mean() - around.mean()) / max(float(around.std()), 1e-12))


def edge_score(average: np.ndarray, diameter_px: float) -> float:
    """Return the share of the power of positive grey values that is outside the particle (neighbours, doublets)."""
    r = radius_grid(average.shape) / np.float32(diameter_px)
    power = np.square(np.maximum(average, 0.0))
    return float(power[r > OUTSIDE[0]].sum() / max(float(power.sum()), 1e-12))


def circularity(average: np.ndarray, diameter_px: float) -> float:
    """Return the power of the first three angular harmonics of the ring over that of its mean (0 for a perfect ring)."""
    box = average.shape[-1]
    axis = np.arange(box) - box // 2
    angle = np.arctan2(axis[:, None], axis[None, :])
    r = radius_grid(average.shape) / np.float32(diameter_px)
    ring = (r > RING[0]) & (r < RING[1])
    values = average[ring].astype(np.float64)
    harmonics = [abs(np.mean(values * np.exp(-1j * m * angle[ring]))) ** 2 for m in (1, 2, 3)]
    return float(sum(harmonics) / max(values.mean() ** 2, 1e-12))


def spread_over_classes(posteriors: pd.DataFrame, best_class: np.ndarray, classes: int) -> np.ndarray:
    """Return for each class the mean effective number of classes of its particles, ``1 / Σ p²`` (1 = certain).

    Parameters
    ----------
    posteriors : DataFrame
        crpParticleRow (from 1), rlnClassNumber, crpWeight.
    best_class : int ``[n]``
        Class numbers from 1.
    """
    squares = np.bincount(
        posteriors["crpParticleRow"].to_numpy(dtype=np.int64) - 1,
        weights=np.square(posteriors["crpWeight"].to_numpy(dtype=np.float64)),
        minlength=len(best_class),
    )
    effective = 1.0 / np.maximum(squares, 1e-6)
    members = np.bincount(best_class - 1, minlength=classes)
    return np.bincount(best_class - 1, weights=effective, minlength=classes) / np.maximum(members, 1)


def class_features(averages: np.ndarray, pixel_size_A: float, diameter_A: float) -> pd.DataFrame:
    """Return one row of features (crpCoreRatio, crpSignal, crpEdgeScore, crpCircularity) per average."""
    smooth = low_pass(averages, pixel_size_A, FEATURE_RESOLUTION_A, ndim=2)
    diameter_px = diameter_A / pixel_size_A
    measures = {
        "crpCoreRatio": core_ratio,
        "crpSignal": signal,
        "crpEdgeScore": edge_score,
        "crpCircularity": circularity,
    }
    return pd.DataFrame({name: [measure(image, diameter_px) for image in smooth] for name, measure in measures.items()})
