"""The step's parameters as the options of the engines that it calls."""

from __future__ import annotations

from cryopipe.config.declaration.base import require
from cryopipe.config.refinement import RefineHomogeneous
from cryopipe.iteration.global_search import GlobalOptions
from cryopipe.iteration.gold_standard import ExchangeOptions
from cryopipe.iteration.half_set_state import HalfSetOptions, OpticsOptions

#: a review follows so many times as many candidates: of poses that were lost, 4 hold 57 % and 12 hold 76 % (docs/benchmarks.md)
REVIEW_CANDIDATES = 3


def half_set_options(params: RefineHomogeneous, *, review: bool) -> HalfSetOptions:
    """Return how each half set is refined, in a review of all poses with more candidates."""
    (offset_range_A,) = require(params, "offset_range_A")
    candidates = params.candidates * (REVIEW_CANDIDATES if review else 1)
    search = GlobalOptions(str(params.symmetry), params.healpix_order, offset_range_A, candidates, diameter_A(params))
    optics = OpticsOptions(
        params.defocus_range_A,
        params.defocus_prior_A,
        params.refine_astigmatism,
        params.astigmatism_prior_A,
        params.refine_scale,
        params.scale_prior,
    )
    return HalfSetOptions(search, optics)


def exchange_options(params: RefineHomogeneous) -> ExchangeOptions:
    """Return what the halves share."""
    join = max(params.join_resolution_A, require(params, "initial_lowpass_A")[0])
    return ExchangeOptions(diameter_A(params), join, mask_options(params), mask_start_A(params))


def mask_options(params: RefineHomogeneous) -> dict[str, float]:
    """Return the options of :func:`cryopipe.reconstruction.dynamic_mask.dynamic_mask`."""
    return {
        "diameter_A": diameter_A(params),
        "low_pass_A": mask_start_A(params),
        "threshold": params.mask_threshold,
        "near_A": params.mask_near_A,
        "far_A": max(params.mask_far_A, params.mask_near_A + 1.0),
    }


def diameter_A(params: RefineHomogeneous) -> float:
    """Return the particle's diameter."""
    return float(require(params, "particle_diameter_A")[0])


def mask_start_A(params: RefineHomogeneous) -> float:
    """Return the resolution from which on the dynamic mask is used."""
    return float(require(params, "mask_start_resolution_A")[0])
