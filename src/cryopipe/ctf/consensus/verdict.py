"""The verdict on one micrograph: which of its CTF estimates agree, and whether they keep the limits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryopipe.config.ctf import ConsensusCtf
from cryopipe.ctf.consensus.agreement import Agreement, agreement, largest_agreeing, mean_defocus
from cryopipe.ctf.consensus.branches import Branch, defocus_of
from cryopipe.ctf.consensus.criteria import defocus_reasons, quality_reasons, resolution_reasons
from cryopipe.ctf.defocus import Defocus, Microscope

_DEFAULT_AGREEMENT_A = {"crossing": 5.0, "area": 5.0, "legacy_linear": 15.0}
Pair = tuple[str, str]


@dataclass(frozen=True)
class CtfVerdict:
    """The decision on one micrograph.

    Attributes
    ----------
    agreeing : tuple of str
        Largest set of branches whose estimates agree, in alphabetical order. Empty if there is no estimate.
    estimates : dict
        ``{branch: (defocus, microscope)}`` of the branches that have one.
    pairs : dict
        ``{(branch, branch): agreement}`` of all pairs, names in alphabetical order.
    reasons : list of str
        Why it is rejected. Empty if it is accepted.
    """

    agreeing: tuple[str, ...]
    estimates: dict[str, tuple[Defocus, Microscope]]
    pairs: dict[Pair, Agreement] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


def judge(item: str, branches: Sequence[Branch], params: ConsensusCtf) -> CtfVerdict:
    """Judge one micrograph. The result depends neither on the order of the branches nor on that of their rows.

    Enough estimates must agree with one another (``params.needed``). The tensor mean of the agreeing ones must keep the
    limits on defocus and astigmatism, the best of them that on the fitted resolution, and each of them those of xmipp's
    criteria that it has.
    """
    records = {branch.name: branch.records[item] for branch in branches if item in branch.records}
    estimates = {name: defocus_of(records[name]) for name in sorted(records)}
    if not estimates:
        return CtfVerdict((), {}, reasons=_absences(item, branches))
    pixel_size_A = float(next(iter(records.values()))["rlnMicrographPixelSize"])
    pairs = {
        (a, b): agreement(estimates[a], estimates[b], pixel_size_A) for a, b in itertools.combinations(estimates, 2)
    }
    limit = params.max_agreement_A or _DEFAULT_AGREEMENT_A[params.agreement]
    distances = {pair: getattr(found, f"{params.agreement}_A") for pair, found in pairs.items()}
    agreeing = largest_agreeing(distances, estimates, limit)
    reasons = []
    if len(agreeing) < params.needed:
        reasons += _absences(item, branches)
        if len(agreeing) < len(estimates):
            reasons.append(_disagreement(distances, estimates, params.agreement, limit))
        if len(branches) > 2:
            reasons.append(f"{len(agreeing)} of {len(branches)} estimates agree, but {params.needed} are required")
    kept = [records[name] for name in agreeing]
    reasons += defocus_reasons(mean_defocus([estimates[name][0] for name in agreeing]), params)
    reasons += resolution_reasons(kept, params)
    for record in kept:
        reasons += quality_reasons(record, params)
    return CtfVerdict(agreeing, estimates, pairs, list(dict.fromkeys(reasons)))


def _absences(item: str, branches: Sequence[Branch]) -> list[str]:
    absent = sorted((branch.name, branch.failure(item)) for branch in branches if item not in branch.records)
    return [f"no estimate from {name}: {why}" for name, why in absent]


def _disagreement(
    distances: dict[Pair, float], estimates: dict[str, tuple[Defocus, Microscope]], criterion: str, limit: float
) -> str:
    worst, (a, b) = max((distance, pair) for pair, distance in distances.items())
    first, second = estimates[a][0], estimates[b][0]
    difference = max(abs(first.u_A - second.u_A), abs(first.v_A - second.v_A))
    return (
        f"{a} and {b} agree only to {worst:.1f} Å ({criterion}), but {limit:g} Å is required; their defoci differ by "
        f"{difference:.0f} Å"
    )
