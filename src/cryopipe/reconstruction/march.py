"""How far in frequency may the next search go? Decided from two half maps, of which nothing but one number is used.

A half's poses may use the shells in which the halves agree: there its reference holds signal. Shells that the halves
share (joined, or below the low-pass of a common start) agree by construction and prove nothing, so agreement is
counted only beyond them. What a half learns of the other is the one number returned: an upper limit on the shells of
its own reference.

References: Scheres & Chen 2012, doi:10.1038/nmeth.2115 (gold standard); Rosenthal & Henderson 2003,
doi:10.1016/j.jmb.2003.07.013 (threshold 0.143).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.fsc import fourier_shell_correlation, masked_fsc, resolution_at

Reason = Literal["agreement", "growth", "largest", "shared"]
THRESHOLD = 0.143


@dataclass(frozen=True)
class NextRadius:
    """The decision and what led to it.

    Attributes
    ----------
    radius : int
        Outermost shell of the next search.
    agreement : float
        Interpolated shell at which the curve first falls below the threshold.
    reason : {"agreement", "growth", "largest", "shared"}
        What limited it: the curve, the step allowed at a time, the data, or that halves agree only where they share.
    fsc : ndarray float64 [box // 2 + 1]
        The curve; corrected for the mask where one was given.
    """

    radius: int
    agreement: float
    reason: Reason
    fsc: np.ndarray


def next_search_radius(
    half1: Any,
    half2: Any,
    *,
    searched: int,
    shared: int,
    largest: int,
    mask: Any = None,
    rng: np.random.Generator | None = None,
    growth: float = 1.4,
    threshold: float = THRESHOLD,
    workers: int = 1,
) -> NextRadius:
    """Return the outermost shell that the next search of either half may use.

    Parameters
    ----------
    half1, half2 : array ``[z, y, x]``
        Half maps, unfiltered and unmasked, from particles and references that met nothing of the other half beyond
        ``shared``. They must be reconstructed some shells beyond ``searched``, or agreement could not be seen there.
    searched : int
        Outermost shell that the poses were searched with.
    shared : int
        Shells up to this one are common to both references.
    largest : int
        Outermost shell of the data.
    mask : array, optional
        Soft mask; the curve is then corrected by phase randomisation and ``rng`` is needed.
    growth : float
        Most by which the radius grows at a time: poses found at ``searched`` must hold for the next one.
    threshold : float
        Of the curve.

    Returns
    -------
    NextRadius
        Never below ``shared`` and never beyond ``largest``. A radius that shrinks is legal: agreement was lost.

    Raises
    ------
    InputError
        Maps differ in shape, are identical, constant or not finite, or the shells are out of order.
    """
    box = int(half1.shape[0])
    if not 1 <= shared <= largest <= box // 2 or not 1 <= searched <= largest or growth <= 1:
        raise InputError(
            f"shells shared {shared}, searched {searched}, largest {largest} (box {box}, growth {growth:g}): "
            f"1 <= shared, searched <= largest <= {box // 2} and growth > 1 are needed"
        )
    curve = _curve(half1, half2, mask, rng, workers)
    beyond = curve[: largest + 1].copy()
    beyond[: shared + 1] = 1.0
    agreement = float(resolution_at(beyond, threshold, box, 1.0).shell)
    allowed = math.ceil(growth * searched)
    limits: list[tuple[int, Reason]] = [(math.floor(agreement), "agreement"), (allowed, "growth"), (largest, "largest")]
    radius, reason = min(limits, key=lambda limit: limit[0])
    if agreement >= largest and reason == "agreement":
        reason = "largest"
    if radius <= shared:
        radius, reason = shared, "shared"
    return NextRadius(radius, agreement, reason, curve)


def _curve(half1: Any, half2: Any, mask: Any, rng: np.random.Generator | None, workers: int) -> np.ndarray:
    for name, half in (("first", half1), ("second", half2)):
        if not bool((half == half).all()) or float(abs(half).max()) in (0.0, float("inf")):
            raise InputError(
                f"the {name} half map is zero throughout or holds NaN or infinity: reconstruct both halves from at "
                "least one particle each"
            )
    if half1 is half2 or (half1.shape == half2.shape and bool((half1 == half2).all())):
        raise InputError("both half maps are the same: give the maps of two independent half sets")
    if mask is None:
        return fourier_shell_correlation(half1, half2, workers=workers)
    if rng is None:
        raise InputError("a masked FSC randomises phases: give rng=context.rng(<name>)")
    return masked_fsc(half1, half2, mask, rng, workers=workers).corrected
