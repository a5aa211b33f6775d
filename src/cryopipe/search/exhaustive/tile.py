"""What the CPU and the array implementation of a search tile share: settings, data, results, significance bins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cryopipe.imaging.backend import array_module
from cryopipe.imaging.fourier_pixels import FourierPixels

ROW_MULTIPLE = 48
"""Rows of a product are padded to a multiple of this, because BLAS kernels work on 6, 8, 12, 16 or 24 rows at a time."""
#: Smallest and largest number of rows of a product: near 512, and so wide that some number of images leaves few rows unused.
_GROUP_ROWS = (384, 640)
#: Largest memory of the scores of one product.
_GROUP_BYTES = 256 << 20


@dataclass(frozen=True)
class TileSettings:
    """Shapes and options of one search.

    A *group* is a fixed number of images, consecutive in content order, whose rows make one product. A tile has ``groups``
    of them. The shapes of products, and so the bits of their results, depend only on the problem (states, shifts, pixels)
    and not on memory or threads.
    """

    group_images: int
    groups: int
    n_shifts: int
    n_references: int
    inverse_temperature: float
    mass: float
    n_candidates: int
    keep_significant: bool
    accumulate: bool
    scale_sd: float = 0.0

    @property
    def images(self) -> int:
        """Number of images of a full tile."""
        return self.group_images * self.groups

    @property
    def group_rows(self) -> int:
        """Number of rows of a group's product, with padding."""
        return filled(self.group_images * self.n_shifts, ROW_MULTIPLE)


@dataclass(frozen=True)
class TileData:
    """All images of a search. Arrays are NumPy or CuPy, except ``pixels``, ``noise_group``, ``base_shifts_px``, ``scale``.

    ``values`` c64 and ``ctf`` f32 [n, K], ``inverse_variance`` f32 [g, K], ``noise_group`` int64 [n],
    ``base_shifts_px`` f64 [n, 2], ``scale`` f32 [n] (mean of the prior of the grey scale), ``phases`` c64 [s, K].
    """

    pixels: FourierPixels
    values: Any
    ctf: Any
    inverse_variance: Any
    noise_group: np.ndarray
    base_shifts_px: np.ndarray
    scale: np.ndarray
    phases: Any

    def whitened_power(self, part: np.ndarray) -> Any:
        """Return Σ |X|²/σ² over the images ``part`` (a host array), float64 [K]."""
        xp = array_module(self.values)
        values, group = self.values[xp.asarray(part)], xp.asarray(self.noise_group[part])
        power = (values.real**2 + values.imag**2) * self.inverse_variance[group]
        return power.sum(axis=0, dtype=np.float64)


@dataclass
class TileAnswer:
    """What a tile keeps of the posteriors of its images (host arrays).

    Columns of ``number``: log evidence, largest probability, effective number of states, dot product and norm at the best
    state, mean and mean square of the grey scale there. Columns of ``best``: state, shift. ``candidate`` [n, m, 2]: state,
    shift. ``dense`` [groups]: whether the sums need the dense product.
    """

    number: np.ndarray
    shift_probability: np.ndarray
    reference_probability: np.ndarray
    best: np.ndarray
    kept: np.ndarray
    candidate_log: np.ndarray
    candidate: np.ndarray
    start: np.ndarray
    dense: np.ndarray = field(default_factory=lambda: np.ones(1, bool))
    state: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    shift: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    weight: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))

    @classmethod
    def empty(cls, n: int, settings: TileSettings) -> TileAnswer:
        """Return an empty result for ``n`` images."""
        return cls(
            number=np.zeros((n, 7)),
            shift_probability=np.zeros((n, settings.n_shifts)),
            reference_probability=np.zeros((n, settings.n_references)),
            best=np.zeros((n, 2), np.int32),
            kept=np.zeros(n, np.int64),
            candidate_log=np.full((n, settings.n_candidates), -np.inf),
            candidate=np.full((n, settings.n_candidates, 2), -1, np.int32),
            start=np.zeros(n + 1, np.int64),
        )


def averaged_likelihood(dot: Any, norm: Any, scale: Any, scale_sd: float, xp: Any) -> Any:
    """Return the log-likelihood a d - ½ a² N of dot products d and norms N, averaged over a ~ N(scale, scale_sd²).

    Parameters
    ----------
    dot, norm : float32 [n, s, o], [n, 1, o]
        Dot products and norms of the states.
    scale : float32 [n, 1, 1]
        Mean grey scale of each image.
    scale_sd : float
        Standard deviation of the grey scale.
    xp : module
        NumPy or CuPy.
    """
    if scale_sd == 0:
        return scale * dot - np.float32(0.5) * scale * scale * norm
    variance, half = np.float32(scale_sd**2), np.float32(0.5)
    damping = 1 / (1 + variance * norm)
    fixed = half * (xp.log(damping) - scale * scale * norm * damping)
    return (half * variance * damping * dot + scale * damping) * dot + fixed


def filled(count: int, multiple: int) -> int:
    """Return ``count`` rounded up to a multiple."""
    return -(-count // multiple) * multiple


def group_images(n_shifts: int, n_states: int) -> int:
    """Return the number of images in a product: about 512 rows with few of them unused, fewer for huge grids."""
    most = max(ROW_MULTIPLE, min(_GROUP_ROWS[1], _GROUP_BYTES // (4 * n_states)))
    least = min(_GROUP_ROWS[0], most // 2)
    counts = range(max(1, least // n_shifts), max(1, most // n_shifts) + 1)
    return min(counts, key=lambda count: (filled(count * n_shifts, ROW_MULTIPLE) / (count * n_shifts), -count))
