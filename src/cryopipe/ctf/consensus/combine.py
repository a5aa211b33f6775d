"""The row of a micrograph with several agreeing CTF estimates: which values go on, and how well all of them agree.

Columns that are written (P is the prefix of the pass: ``crpCtfConsensus`` or ``crpCtfEnvelopeConsensus``):

- ``P + Estimates``, ``P + Agreeing``: how many branches have an estimate, and the names of those that agree.
- ``P + Crossing | Area | Legacy`` (Å): worst agreement of any two agreeing branches.
- ``P + DefocusDifference`` (Å, the larger of |ΔU| and |ΔV|), ``P + AngleDifference``, ``P + PhaseShiftDifference``
  (degrees): largest differences of agreeing branches.
- ``P + DefocusU | DefocusV | DefocusAngle`` and ``P + DefocusMean | AstigmatismX | AstigmatismY`` (z, a, b of
  `cryopipe.ctf.defocus`): mean of the agreeing branches, as tensors. With ``Sd`` added: their standard deviations (n - 1),
  those of U and V along the axes of the mean.
- ``crpCtfAgreement<A><B>`` (Å): resolution at which the phases of A and B differ by 90°, for all pairs of branches.
- ``crpCtf<A>DefocusU | DefocusV | DefocusAngle | DefocusMeanError | AstigmatismError | FigureOfMerit | MaxResolution |
  Image``: the values of each estimator, and ``crpCtf<A>Weight``: its weight in the mean defocus of the row.
- ``P + OutVoted``: names of the estimates that contradict the others, by a whole ring or by more than their errors.
- ``crpCtfDefocusMeanError`` and the other columns of errors: those of the defocus of the row.
- ``crpCtfDefocusFrom``, ``crpCtfEnvelopeFrom``: names of the branches from which defocus and envelope of the row come.

The values are -9999 and "none" if a branch has no estimate of this micrograph.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cryopipe.config.ctf import ConsensusCtf
from cryopipe.ctf.consensus.agreement import angle_difference_deg, mean_defocus, spread
from cryopipe.ctf.consensus.branches import Branch
from cryopipe.ctf.consensus.members import Result, combine_all
from cryopipe.ctf.consensus.verdict import CtfVerdict
from cryopipe.ctf.sector_errors import ERROR_COLUMNS, MISSING, error_columns

_NONE = "none"
#: Values of ``defocus_from`` for which the estimates are combined.
_MEANS = ("weighted", "mean")
#: Resolution (Å) for two CTFs that differ already at frequency zero. STAR files cannot contain infinity.
_NEVER_A = 9999.0
#: Columns that belong to a defocus and are taken together with it.
_DEFOCUS = (
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnDefocusAngle",
    "rlnPhaseShift",
    "rlnCtfAstigmatism",
    "rlnCtfFigureOfMerit",
    "rlnCtfMaxResolution",
    "rlnCtfValidationScore",
    "crpCtfAliasingResolution",
    *ERROR_COLUMNS,
)
_OF_EACH = {
    "DefocusU": "rlnDefocusU",
    "DefocusV": "rlnDefocusV",
    "DefocusAngle": "rlnDefocusAngle",
    "DefocusMeanError": "crpCtfDefocusMeanError",
    "AstigmatismError": "crpCtfAstigmatismError",
    "FigureOfMerit": "rlnCtfFigureOfMerit",
    "MaxResolution": "rlnCtfMaxResolution",
    "Image": "rlnCtfImage",
}
_TOGETHER = (
    "Crossing", "Area", "Legacy", "DefocusDifference", "AngleDifference", "PhaseShiftDifference",
    "DefocusU", "DefocusUSd", "DefocusV", "DefocusVSd", "DefocusAngle",
    "DefocusMean", "DefocusMeanSd", "AstigmatismX", "AstigmatismXSd", "AstigmatismY", "AstigmatismYSd",
)  # fmt: skip


def combined_rows(
    verdicts: Mapping[str, CtfVerdict], branches: Sequence[Branch], params: ConsensusCtf, prefix: str
) -> pd.DataFrame:
    """Return the rows of the accepted micrographs, in the order of ``verdicts``.

    The columns depend only on those of the branches and on ``params``, so that batches can be joined.

    Parameters
    ----------
    verdicts : mapping
        ``{item: verdict}`` of the accepted micrographs, in the order of the rows.
    branches : sequence of Branch
        Tables of estimates, in the order of ``params.branches``.
    params : ConsensusCtf
        States which defocus and envelope go on, and whether columns of later branches are taken over.
    prefix : str
        Prefix of the columns of this pass (P in the docstring of the module).
    """
    fills = _columns(branches, params, prefix)
    results = combine_all(verdicts, branches, weighted=params.defocus_from == "weighted")
    rows = [_row(item, verdict, results[item], branches, params, prefix, fills) for item, verdict in verdicts.items()]
    frame = pd.DataFrame(rows, columns=list(fills))
    types = {name: {float: "float64", int: "int64"}.get(type(fill), "object") for name, fill in fills.items()}
    return frame.astype(types)


def _columns(branches: Sequence[Branch], params: ConsensusCtf, prefix: str) -> dict[str, float | int | str]:
    """Return ``{column of the new table: value that marks a missing one}``."""
    first, *others = branches
    fills: dict[str, float | int | str] = {str(name): _fill(branches, str(name)) for name in first.table.rows}
    for other in others:
        wanted = [
            str(name)
            for name in other.table.rows
            if params.include_secondary
            or (other.name == params.defocus_from and name in _DEFOCUS)
            or (other.name == params.envelope_from and _is_envelope(str(name)))
        ]
        fills |= {name: _fill(branches, name) for name in wanted if name not in fills}
    fills |= {f"{prefix}Estimates": 0, f"{prefix}Agreeing": _NONE, "crpCtfDefocusFrom": _NONE}
    if params.envelope_from is not None:
        fills["crpCtfEnvelopeFrom"] = _NONE
    if any(name in branch.table.rows for branch in branches for name in ERROR_COLUMNS):
        fills |= {name: MISSING for name in ERROR_COLUMNS if name not in fills}
    if len(branches) > 1:
        fills |= {f"{prefix}OutVoted": _NONE}
        fills |= {f"{prefix}{name}": MISSING for name in _TOGETHER}
        fills |= {
            _pair(a, b): MISSING for a, b in itertools.combinations(sorted(branch.name for branch in branches), 2)
        }
        for branch in branches:
            fills |= {name: _fill(branches, source) for name, source in _own_columns(branch).items()}
            if params.defocus_from in _MEANS and branch.name != "consensus_ctf":
                fills[_weight(branch.name)] = MISSING
    return fills


def _row(
    item: str,
    verdict: CtfVerdict,
    result: Result,
    branches: Sequence[Branch],
    params: ConsensusCtf,
    prefix: str,
    fills: Mapping[str, float | int | str],
) -> dict[str, Any]:
    agreeing = [branch for branch in branches if branch.name in verdict.agreeing]
    by_name = {branch.name: branch for branch in agreeing}
    row = dict(fills)
    for branch in reversed(agreeing):  # so that the first agreeing branch overwrites the others
        row |= {name: value for name, value in branch.rows[item].items() if name in fills}
    source = by_name.get(params.defocus_from, agreeing[0])
    row |= {name: value for name, value in source.rows[item].items() if name in _DEFOCUS and name in fills}
    row["crpCtfDefocusFrom"] = source.rows[item].get("crpCtfDefocusFrom", source.name)
    out_voted = result.combination.out_voted
    if params.defocus_from in _MEANS and len(agreeing) > 1:
        row |= _mean_columns(result, fills)
        row["crpCtfDefocusFrom"] = "+".join(name for name in verdict.agreeing if name not in out_voted)
    if params.envelope_from is not None:
        envelope = by_name.get(params.envelope_from)
        if envelope is not None:
            row |= {name: value for name, value in envelope.rows[item].items() if _is_envelope(name) and name in fills}
        row["crpCtfEnvelopeFrom"] = _NONE if envelope is None else envelope.name
    row |= {f"{prefix}Estimates": len(verdict.estimates), f"{prefix}Agreeing": "+".join(verdict.agreeing)}
    if len(branches) > 1:
        if len(agreeing) > 1:
            row |= {f"{prefix}{name}": value for name, value in _together(verdict).items()}
        out = [name for name in verdict.estimates if name not in verdict.agreeing or name in out_voted]
        row[f"{prefix}OutVoted"] = "+".join(out) or _NONE
        row |= {_pair(*pair): min(found.crossing_A, _NEVER_A) for pair, found in verdict.pairs.items()}
        weights = dict.fromkeys(verdict.estimates, 0.0) | result.combination.weights
        row |= {_weight(name): weight for name, weight in weights.items() if _weight(name) in fills}
        for branch in branches:
            if item in branch.rows:
                row |= {name: branch.rows[item][source] for name, source in _own_columns(branch).items()}
    return row


def _together(verdict: CtfVerdict) -> dict[str, float]:
    """Return mean, scatter and largest differences of the agreeing estimates, with the names in ``_TOGETHER``."""
    pairs = list(itertools.combinations(verdict.agreeing, 2))
    defoci = [verdict.estimates[name][0] for name in verdict.agreeing]
    both = list(itertools.combinations(defoci, 2))
    mean, sd = mean_defocus(defoci), spread(defoci)
    phases = np.degrees([[d.phase_shift_rad for d in pair] for pair in both])
    values = (
        *(
            min(max(getattr(verdict.pairs[pair], name) for pair in pairs), _NEVER_A)
            for name in ("crossing_A", "area_A", "legacy_linear_A")
        ),
        max(max(abs(a.u_A - b.u_A), abs(a.v_A - b.v_A)) for a, b in both),
        max(angle_difference_deg(a.angle_deg, b.angle_deg) for a, b in both),
        max(angle_difference_deg(float(a), float(b)) for a, b in phases),
        *(mean.u_A, sd.u_A, mean.v_A, sd.v_A, mean.angle_deg),
        *(mean.mean_A, sd.mean_A, mean.a_A, sd.a_A, mean.b_A, sd.b_A),
    )
    return dict(zip(_TOGETHER, values, strict=True))


def _mean_columns(result: Result, fills: Mapping[str, Any]) -> dict[str, float]:
    mean = result.combination.defocus
    values = {
        "rlnDefocusU": mean.u_A,
        "rlnDefocusV": mean.v_A,
        "rlnDefocusAngle": mean.angle_deg,
        "rlnPhaseShift": float(np.degrees(mean.phase_shift_rad)),
        "rlnCtfAstigmatism": mean.u_A - mean.v_A,
        **error_columns(result.error),
    }
    return {name: value for name, value in values.items() if name in fills}


def _weight(name: str) -> str:
    return f"crpCtf{name.title()}Weight"


def _own_columns(branch: Branch) -> dict[str, str]:
    """Return ``{new column: column of the branch's table}`` for the values of an estimator; empty for a consensus."""
    if branch.name == "consensus_ctf":
        return {}
    return {
        f"crpCtf{branch.name.title()}{what}": source for what, source in _OF_EACH.items() if source in branch.table.rows
    }


def _pair(first: str, second: str) -> str:
    return "crpCtfAgreement" + "".join(name.removesuffix("_ctf").title() for name in (first, second))


def _is_envelope(name: str) -> bool:
    return name.startswith("crpCtf") and name not in _DEFOCUS


def _fill(branches: Sequence[Branch], name: str) -> float | int | str:
    """Return the value that marks a missing one in a column. Empty tables are skipped, since their columns have no types."""
    tables = sorted((branch.table.rows for branch in branches if name in branch.table.rows), key=len, reverse=True)
    kind = tables[0][name].dtype.kind
    return int(MISSING) if kind in "iu" else MISSING if kind == "f" else _NONE
