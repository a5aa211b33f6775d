"""The agreeing estimates of a micrograph with their stated errors, and the combined defocus that goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryopipe.ctf.consensus.branches import Branch
from cryopipe.ctf.consensus.calibration import Calibration, calibrate
from cryopipe.ctf.consensus.criteria import value_of
from cryopipe.ctf.consensus.verdict import CtfVerdict
from cryopipe.ctf.consensus.weights import Combination, Member, combine
from cryopipe.ctf.sector_errors import DefocusError

#: Error (Å) of all estimates if none states one. Then only the ratios of errors matter, because no error is written.
_ALIKE_A = 1.0


@dataclass(frozen=True)
class Result:
    """The defocus that goes on with weights and out-voted members, and its error (None if no member states one)."""

    combination: Combination
    error: DefocusError | None


def combine_all(verdicts: Mapping[str, CtfVerdict], branches: Sequence[Branch], *, weighted: bool) -> dict[str, Result]:
    """Return ``{item: result}``.

    Parameters
    ----------
    verdicts : mapping
        ``{item: verdict}`` of the accepted micrographs.
    branches : sequence of Branch
        Tables of estimates.
    weighted : bool
        True: weights are from the stated errors, after a calibration with all micrographs. False: all weights are equal.
    """
    stated = {item: _members(item, verdict, branches) for item, verdict in verdicts.items()}
    complete = [
        {name: member for name, member in members.items() if member is not None}
        for members in stated.values()
        if all(members.values())
    ]
    calibration = calibrate(complete) if weighted else Calibration()
    return {item: _result(verdicts[item], members, calibration, weighted) for item, members in stated.items()}


def _members(item: str, verdict: CtfVerdict, branches: Sequence[Branch]) -> dict[str, Member | None]:
    """Return the agreeing estimates of a micrograph. An estimate that states no error is None."""
    members: dict[str, Member | None] = {}
    for branch in branches:
        if branch.name in verdict.agreeing:
            mean, astigmatism = (
                value_of(branch.records[item], name) for name in ("crpCtfDefocusMeanError", "crpCtfAstigmatismError")
            )
            known = mean and astigmatism and min(mean, astigmatism) > 0
            defocus = verdict.estimates[branch.name][0]
            members[branch.name] = Member(defocus, mean, astigmatism) if known and mean and astigmatism else None
    return dict(sorted(members.items()))


def _result(
    verdict: CtfVerdict, members: Mapping[str, Member | None], calibration: Calibration, weighted: bool
) -> Result:
    known = {name: calibration.apply(name, member) for name, member in members.items() if member is not None}
    if not known:
        alike = {name: Member(verdict.estimates[name][0], _ALIKE_A, _ALIKE_A) for name in members}
        return Result(combine(alike, (0.0, 0.0), weighted=False), None)
    # an estimate without an error gets the largest error of the others
    largest = [max(getattr(m, part) for m in known.values()) for part in ("mean_error_A", "astigmatism_error_A")]
    everyone = {name: known.get(name) or Member(verdict.estimates[name][0], *largest) for name in members}
    found = combine(everyone, calibration.correlations, calibration.common_A, weighted=weighted)
    return Result(found, found.error)
