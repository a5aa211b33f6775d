"""Global search that marches in frequency: coarse cells at low resolution, their survivors cut finer at twice the radius.

Each level scores the centres of an image's cells (orientation x shift) inside a radius at which a cell is small, prunes
the cells that cannot hold the true pose but with a stated probability (`cryopipe.search.adaptive.bounds`), and cuts the others
into 8 x 4 at twice the radius, until the full radius and the wanted angular step are reached. The first level is dense
(matrix products); on the following ones slices are extracted once for all images that want them and each pair is
scored by itself.

The idea of marching with branch and bound: Punjani et al. 2017, doi:10.1038/nmeth.4169; adaptive oversampling: Scheres
2012, doi:10.1016/j.jsb.2012.09.006. The pruning rule here is neither's: see `cryopipe.search.adaptive.bounds`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numba
import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module
from cryopipe.projection.particle_spectra import ParticleSpectra, inverse_variance_of
from cryopipe.search.adaptive.cells import OrientationTree
from cryopipe.search.adaptive.descent import Plan, first_level, next_level
from cryopipe.search.adaptive.levels import AdaptivePosterior, Level
from cryopipe.search.adaptive.survivors import Problem
from cryopipe.search.exhaustive.search import checked_offsets


def search_adaptive(
    images: ParticleSpectra,
    sigma2: np.ndarray,
    cube: Any,
    *,
    levels: tuple[Level, ...],
    shift_range_px: float,
    padding: int = 2,
    symmetry: str = "C1",
    rotation: np.ndarray | None = None,
    shift_sigma_px: float | None = None,
    base_shifts_px: np.ndarray | None = None,
    noise_group: np.ndarray | None = None,
    scale: np.ndarray | None = None,
    miss_probability: float = 1e-3,
    guarantee: str = "truth",
    most_states: int = 20_000,
    n_candidates: int = 8,
    threads: int | None = None,
) -> AdaptivePosterior:
    """Search all orientations and shifts of each image, coarse to fine.

    Parameters
    ----------
    images : ParticleSpectra
        n images; NumPy or CuPy, like ``cube``.
    sigma2 : ndarray [radius + 1] or [g, radius + 1]
        Noise variance of real and imaginary part each, by shell; ``noise_group`` as in `search_poses`.
    cube : complex64 [2R+1, 2R+1, R+1]
        `cryopipe.projection.references.reference_cube` of the map with the same ``padding``.
    levels : tuple of Level
        `plan_levels`.
    shift_range_px : float
        Radius of the disc of shifts about the base shift; 0: no shift.
    symmetry : str
        Point group of the map: the asymmetric unit is searched.
    rotation : ndarray [3, 3], optional
        Displaces the grid (`cryopipe.search.grid.random_displacement`).
    shift_sigma_px : float, optional
        Gaussian prior of the shift about the base; flat in the disc by default.
    base_shifts_px : ndarray [n, 2], optional
        Applied to each image before the search.
    scale : ndarray [n], optional
        Grey scale of each image.
    miss_probability : float
        Probability that the cell with the true pose is pruned on the way, all levels together, if the map is right and
        the noise is that of ``sigma2``.
    guarantee : {"truth", "best"}
        ``"truth"``: as above. ``"best"``: besides, no state is pruned that could be significant (a thousandth of the
        best) in an exhaustive search at the full radius, with the same probability of failure: a cell stays if it
        passes either rule. Costs more the more signal lies at high frequencies.
    most_states : int
        Cap on the surviving states of an image and level, best first; the image is flagged then.
    n_candidates : int
        Orientations to return for `cryopipe.poses.refine_poses.refine_candidates`.
    threads : int, optional
        CPU threads; Numba's number by default. Neither they nor the order of the images change a bit.

    Raises
    ------
    InputError
        A value is out of range, or images and map do not fit.
    """
    array_module(images.values, cube)  # refuses a mix
    _check(
        images,
        levels,
        {
            "shift_range_px": shift_range_px,
            "miss_probability": miss_probability,
            "guarantee": guarantee,
            "most_states": most_states,
        },
    )
    base, grey = checked_offsets(len(images), base_shifts_px, scale)
    group = np.zeros(len(images), np.int64) if noise_group is None else np.asarray(noise_group, np.int64)
    problem = Problem(images, inverse_variance_of(images, sigma2, noise_group), group, cube, padding, base, grey)
    tree = OrientationTree(levels[0].order, symmetry, rotation=rotation)
    plan = Plan(problem, tree, levels, shift_range_px, shift_sigma_px, miss_probability, guarantee)
    with _numba_threads(threads):
        frontier, report = first_level(plan, np.asarray(sigma2), noise_group, most_states, threads)
        reports = [report]
        for depth in range(1, len(levels)):
            frontier, report, answer = next_level(plan, depth, frontier, most_states, n_candidates)
            reports.append(report)
    if answer is None:
        raise RuntimeError("the last level described no posterior")
    return replace(answer, reports=tuple(reports))


def _check(images: ParticleSpectra, levels: tuple[Level, ...], plan: dict[str, Any]) -> None:
    if len(levels) < 2 or any(b.order != a.order + 1 for a, b in itertools.pairwise(levels)):
        raise InputError(
            "an adaptive search needs two levels or more whose orders rise one by one: make them with plan_levels"
        )
    if levels[-1].radius > images.pixels.radius:
        raise InputError(
            f"the levels reach shell {levels[-1].radius}, the images {images.pixels.radius}: load them to that radius"
        )
    if plan["shift_range_px"] < 0:
        raise InputError(f"shift range {plan['shift_range_px']} px: it must not be negative")
    if not 0 < plan["miss_probability"] < 0.5:
        raise InputError(f"miss probability {plan['miss_probability']}: it must lie between 0 and 0.5")
    if plan["guarantee"] not in ("truth", "best"):
        raise InputError(f"guarantee {plan['guarantee']!r}: give 'truth' or 'best'")
    if plan["most_states"] < 1:
        raise InputError(f"at most {plan['most_states']} states: at least one must survive")


@contextmanager
def _numba_threads(threads: int | None) -> Iterator[None]:
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads or before, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(before)
