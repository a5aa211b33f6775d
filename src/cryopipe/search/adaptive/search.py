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
from dataclasses import replace

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module
from cryopipe.kernels._dispatch import cpu_threads
from cryopipe.kernels.devices import Resources
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import ReferenceMap
from cryopipe.search.adaptive.cells import OrientationTree
from cryopipe.search.adaptive.descent import Descent, first_level, next_level
from cryopipe.search.adaptive.levels import AdaptiveOptions, AdaptivePosterior, Level
from cryopipe.search.adaptive.survivors import Problem
from cryopipe.search.options import GreyScale
from cryopipe.search.shifts import ShiftDisc

_ONE = GreyScale()
_PLAIN = AdaptiveOptions()
_HERE = Resources()


def search_adaptive(
    images: ParticleSpectra,
    noise: NoiseModel,
    reference: ReferenceMap,
    levels: tuple[Level, ...],
    shifts: ShiftDisc,
    *,
    symmetry: str = "C1",
    rotation: np.ndarray | None = None,
    scale: GreyScale = _ONE,
    options: AdaptiveOptions = _PLAIN,
    resources: Resources = _HERE,
) -> AdaptivePosterior:
    """Search all orientations and shifts of each image, coarse to fine.

    Parameters
    ----------
    images : ParticleSpectra
        n images; NumPy or CuPy, like the reference.
    noise : NoiseModel
        Noise variances of the images.
    reference : ReferenceMap
        The map.
    levels : tuple of Level
        `plan_levels`.
    shifts : ShiftDisc
        Shifts to search, and their prior.
    symmetry : str
        Point group of the map: the asymmetric unit is searched.
    rotation : ndarray [3, 3], optional
        Displaces the grid (`cryopipe.search.grid.random_displacement`).
    scale : GreyScale
        Grey scale of each image; its spread is not used.
    options : AdaptiveOptions
        What may be missed, and what to return.
    resources : Resources
        CPU threads. Neither they nor the order of the images change a bit.

    Raises
    ------
    InputError
        A value is out of range, or images and map do not fit.
    """
    array_module(images.values, reference.cube)  # refuses a mix
    _check(images, levels)
    n = len(images)
    problem = Problem(
        images, noise, noise.inverse_variance(images), noise.groups(n), reference, shifts.bases_px(n), scale.means(n)
    )
    tree = OrientationTree(levels[0].order, symmetry, rotation=rotation)
    descent = Descent(problem, tree, levels, shifts, options)
    with cpu_threads(resources.cpu_threads):
        frontier, report = first_level(descent, resources)
        reports = [report]
        for depth in range(1, len(levels)):
            frontier, report, answer = next_level(descent, depth, frontier)
            reports.append(report)
    if answer is None:
        raise RuntimeError("the last level described no posterior")
    return replace(answer, reports=tuple(reports))


def _check(images: ParticleSpectra, levels: tuple[Level, ...]) -> None:
    if len(levels) < 2 or any(b.order != a.order + 1 for a, b in itertools.pairwise(levels)):
        raise InputError(
            "an adaptive search needs two levels or more whose orders rise one by one: make them with plan_levels"
        )
    if levels[-1].radius > images.pixels.radius:
        raise InputError(
            f"the levels reach shell {levels[-1].radius}, the images {images.pixels.radius}: load them to that radius"
        )
