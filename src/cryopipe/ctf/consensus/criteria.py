"""Limits that a CTF must keep: defocus, astigmatism, fitted resolution, and xmipp's criteria of a fit.

The table of xmipp's criteria follows its CTF consensus and CTF estimation protocols of 2020 (Sorzano et al. 2007, J.
Struct. Biol. 160:249, doi:10.1016/j.jsb.2007.08.013). Programs normalise spectra differently. So limits that were tuned
to the spectra of xmipp are off by default, and those with a physical meaning are on
(`cryopipe.config.ctf.ConsensusCtf`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryopipe.config.ctf import ConsensusCtf
from cryopipe.ctf.defocus import Defocus
from cryopipe.ctf.sector_errors import MISSING


@dataclass(frozen=True)
class Criterion:
    """A column of an estimator's table and the parameters that limit it (None: no limit on that side)."""

    column: str
    says: str
    unit: str
    lower: str | None = None
    upper: str | None = None


CRITERIA = (
    Criterion("crpCtfFirstZero", "first zero at", " Å", lower="min_first_zero_A"),
    Criterion(
        "crpCtfFirstZeroRatio", "ratio of first zeros", "", lower="min_first_zero_ratio", upper="max_first_zero_ratio"
    ),
    Criterion("crpCtfEnvelopeResolution", "envelope ends at", " Å", upper="max_envelope_resolution_A"),
    Criterion("crpCtfCorr13", "correlation between zeros 1 and 3", "", lower="min_corr13"),
    Criterion("crpCtfMargin", "margin of the first ring", "", lower="min_margin"),
    Criterion(
        "crpCtfFirstMinFirstZeroRatio",
        "scatter of the first extremum against the first zero",
        "",
        upper="max_first_min_first_zero_ratio",
    ),
    Criterion("crpCtfAstigmaticValidity", "a round CTF would be wrong from", " Å", upper="max_astigmatic_validity_A"),
    Criterion("crpCtfPsdCorr90", "correlation of the spectrum with itself at 90°", "", lower="min_psd_corr90"),
    Criterion("crpCtfIceness", "iceness", "", upper="max_iceness"),
)


def defocus_reasons(defocus: Defocus, params: ConsensusCtf) -> list[str]:
    """Return a text for each limit on defocus and astigmatism that ``defocus`` breaks, with value and limit."""
    reasons = []
    if defocus.v_A < params.min_defocus_A:
        reasons.append(f"defocus {defocus.v_A:.0f} Å is below {params.min_defocus_A:g} Å")
    if defocus.u_A > params.max_defocus_A:
        reasons.append(f"defocus {defocus.u_A:.0f} Å is above {params.max_defocus_A:g} Å")
    astigmatism = defocus.u_A - defocus.v_A
    if params.max_astigmatism_A is not None and astigmatism > params.max_astigmatism_A:
        reasons.append(f"astigmatism {astigmatism:.0f} Å exceeds {params.max_astigmatism_A:g} Å")
    limit = params.max_relative_astigmatism
    if limit is not None and astigmatism > limit * abs(defocus.mean_A):
        reasons.append(
            f"astigmatism is {astigmatism / abs(defocus.mean_A):.3f} of the defocus, but {limit:g} is allowed"
        )
    return reasons


def resolution_reasons(records: Sequence[Mapping[str, Any]], params: ConsensusCtf) -> list[str]:
    """Return the reason if none of the agreeing estimates fits the rings to a fine enough resolution.

    Programs measure this resolution differently (one stops at the first dip, another looks past it), so the best of
    them counts. Whether their defoci agree is checked elsewhere.
    """
    values = [value for record in records if (value := value_of(record, "rlnCtfMaxResolution")) is not None]
    limit = params.max_resolution_A
    if limit is None or not values or min(values) <= limit:
        return []
    return [f"CTF fitted only to {min(values):.1f} Å, but {limit:g} Å is required"]


def quality_reasons(record: Mapping[str, Any], params: ConsensusCtf) -> list[str]:
    """Return which of xmipp's criteria an estimate breaks. Columns that it does not have are not judged."""
    reasons = []
    for criterion in CRITERIA:
        value = value_of(record, criterion.column)
        if value is None:
            continue
        for name, side in ((criterion.lower, -1.0), (criterion.upper, 1.0)):
            limit = None if name is None else getattr(params, name)
            if limit is not None and side * (value - limit) > 0:
                word = "below" if side < 0 else "above"
                reasons.append(f"{criterion.says} {value:.3g}{criterion.unit} is {word} {limit:g}{criterion.unit}")
    return reasons


def value_of(record: Mapping[str, Any], column: str) -> float | None:
    """Return a number of a row, or None if the column is missing or has the value `MISSING`."""
    value = record.get(column)
    return None if value is None or float(value) == MISSING else float(value)
