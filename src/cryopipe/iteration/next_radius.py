"""How far in frequency the next search may go: a single number that follows from two half maps.

The poses of a half may use the shells in which the halves agree, because there its reference holds signal. Shells that
the halves share (joined, or below the low-pass of a common start) agree by construction. This proves nothing, so
agreement counts only beyond them. The number returned is all that a half learns of the other: an upper limit on the
shells of its own reference.

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
#: Rosenthal & Henderson 2003: where half maps agree to this, the full map agrees to 0.5 with a perfect reference.
THRESHOLD = 0.143


@dataclass(frozen=True)
class NextRadius:
    """The decision and what led to it.

    Attributes
    ----------
    radius : int
        Outermost shell of the next search.
    agreement : float
        Interpolated shell at which the curve first falls below the threshold, beyond the shared shells.
    reason : {"agreement", "growth", "largest", "shared"}
        What limited it: the curve, the growth allowed at a time, the data, or that the halves agree only in shared shells.
    """

    radius: int
    agreement: float
    reason: Reason


def next_search_radius(
    fsc: np.ndarray,
    *,
    searched: int,
    shared: int,
    largest: int,
    growth: float = 1.4,
    threshold: float = THRESHOLD,
) -> NextRadius:
    """Return the outermost shell that the next search of either half may use.

    Parameters
    ----------
    fsc : ndarray float64
        FSC of each shell between half maps (`half_map_fsc`) that had nothing in common beyond ``shared``. It must reach
        some shells beyond ``searched``, or agreement there could not be seen.
    searched : int
        Outermost shell with which poses were searched.
    shared : int
        Shells up to this one are common to both references.
    largest : int
        Outermost shell of the data.
    growth : float
        Largest factor by which the radius grows at a time: poses found at ``searched`` must be good enough for the next.
    threshold : float
        FSC below which halves do not agree.

    Returns
    -------
    NextRadius
        Its radius is never below ``shared`` and never beyond ``largest``. It shrinks if agreement was lost.

    Raises
    ------
    InputError
        The curve is too short or not finite, or the shells are out of order.
    """
    if not 1 <= shared <= largest or not 1 <= searched <= largest or growth <= 1:
        raise InputError(
            f"shells shared {shared}, searched {searched}, largest {largest} (growth {growth:g}): "
            "these must be 1 <= shared, searched <= largest, and growth > 1."
        )
    curve = np.array(fsc[: largest + 1], dtype=np.float64)
    if curve.ndim != 1 or len(curve) <= shared or not np.isfinite(curve).all():
        raise InputError(
            f"the FSC has {len(curve)} shells; it must be finite everywhere and reach beyond the {shared} shared shells."
        )
    curve[: shared + 1] = 1.0
    agreement = float(resolution_at(curve, threshold, 2 * len(curve), 1.0).shell)
    allowed = math.ceil(growth * searched)
    limits: list[tuple[int, Reason]] = [(math.floor(agreement), "agreement"), (allowed, "growth"), (largest, "largest")]
    radius, reason = min(limits, key=lambda limit: limit[0])
    if agreement >= largest and reason == "agreement":
        reason = "largest"
    if radius <= shared:
        radius, reason = shared, "shared"
    return NextRadius(radius, agreement, reason)


def half_map_fsc(
    half1: Any, half2: Any, *, mask: Any = None, rng: np.random.Generator | None = None, threads: int = 1
) -> np.ndarray:
    """Return the FSC between unfiltered, unmasked half maps. With a soft mask it is measured inside and corrected for it.

    Parameters
    ----------
    half1, half2 : array float32 [z, y, x]
    mask : array float32 [z, y, x], optional
        Soft mask.
    rng : Generator, optional
        Random phases of the mask's correction; needed with a mask.
    threads : int
        CPU threads.

    Raises
    ------
    InputError
        Maps differ in shape, are identical, constant or not finite.
    """
    for name, half in (("first", half1), ("second", half2)):
        if not bool((half == half).all()) or float(abs(half).max()) in (0.0, float("inf")):
            raise InputError(
                f"the {name} half map is zero everywhere, or holds NaN or infinity. Reconstruct each half from at least "
                "one particle."
            )
    if half1 is half2 or (half1.shape == half2.shape and bool((half1 == half2).all())):
        raise InputError("both half maps are the same. Give the maps of two independent half sets.")
    if mask is None:
        return fourier_shell_correlation(half1, half2, threads=threads)
    if rng is None:
        raise InputError("a masked FSC randomises phases: give rng=context.rng(<name>)")
    return masked_fsc(half1, half2, mask, rng, threads=threads).corrected
