"""Step ``consensus_ctf``: keep the micrographs whose CTF can be trusted, by limits and by agreement between estimators.

The first branch is primary: its rows go on. Limits on defocus, astigmatism and fitted resolution are put to it; with
two and more branches any two estimates of a micrograph must agree to a resolution (`agreement`), and their spread is
written down. Branches are joined by item, never by order. A criterion whose column a branch does not have is not
applied.

References
----------
Marabini et al. 2015, J. Struct. Biol. 190:348, doi:10.1016/j.jsb.2015.04.003; xmipp3 CTF consensus. Known limit: an
estimator that started from another one's answer agrees with it too easily.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryopipe.config.ctf import ConsensusCtf
from cryopipe.context import Context
from cryopipe.ctf.agreement import Agreement, agreement, angle_difference_deg, mean_defocus
from cryopipe.ctf.model import Defocus, Microscope, from_uv
from cryopipe.errors import InputError
from cryopipe.io.star import StarTable, read_table, write_rejections, write_table
from cryopipe.items import Rejection

_NEEDED = (
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnDefocusAngle",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
)
_DEFAULT_AGREEMENT_A = {"crossing": 5.0, "area": 5.0, "legacy_linear": 15.0}
_COLUMNS = (
    "crpCtfBranches",
    "crpCtfAgreementCrossing",
    "crpCtfAgreementArea",
    "crpCtfAgreementLegacy",
    "crpCtfDefocusSpread",
    "crpCtfAngleSpread",
    "crpCtfDefocusMean",
    "crpCtfDefocusSd",
)
Record = Mapping[str, Any]


def defocus_of(record: Record) -> tuple[Defocus, Microscope]:
    """Return defocus and microscope of a row joined with its optics.

    Raises
    ------
    InputError
        A column is missing.
    """
    missing = [name for name in _NEEDED if name not in record]
    if missing:
        raise InputError(f"the table of micrographs has no {', '.join(missing)}. Estimate the CTF first.")
    u, v, angle, voltage, cs, contrast = (float(record[name]) for name in _NEEDED)
    return from_uv(u, v, angle, float(record.get("rlnPhaseShift", 0.0))), Microscope(voltage, cs, contrast)


def limit_reasons(record: Record, params: ConsensusCtf) -> list[str]:
    """Return which limits the primary estimate of a micrograph breaks, each naming value and limit."""
    defocus, _ = defocus_of(record)
    reasons = []
    if defocus.v_A < params.min_defocus_A:
        reasons.append(f"defocus {defocus.v_A:.0f} Å is below {params.min_defocus_A:g} Å")
    if defocus.u_A > params.max_defocus_A:
        reasons.append(f"defocus {defocus.u_A:.0f} Å is above {params.max_defocus_A:g} Å")
    astigmatism = defocus.u_A - defocus.v_A
    if astigmatism > params.max_astigmatism_A:
        reasons.append(f"astigmatism {astigmatism:.0f} Å exceeds {params.max_astigmatism_A:g} Å")
    resolution = record.get("rlnCtfMaxResolution")
    if resolution is not None and float(resolution) > params.max_resolution_A:
        reasons.append(f"CTF fitted to {float(resolution):.1f} Å only, {params.max_resolution_A:g} Å is asked for")
    return reasons


def compare_branches(records: Sequence[Record], pixel_size_A: float) -> dict[str, float]:
    """Return the worst agreement of any two estimates of a micrograph, their spread, and the mean defocus of them.

    Parameters
    ----------
    records : sequence
        The micrograph's rows (joined with optics), one a branch; their order does not matter.
    pixel_size_A : float
        Of the micrograph: the comparison ends at its Nyquist frequency.
    """
    estimates = [defocus_of(record) for record in records]
    pairs = list(itertools.combinations(estimates, 2))
    means = np.sort([defocus.mean_A for defocus, _ in estimates])  # sorted: sums that no order of branches changes
    found: list[Agreement] = [agreement(a, b, pixel_size_A) for a, b in pairs]
    return {
        "crossing": max(f.crossing_A for f in found),
        "area": max(f.area_A for f in found),
        "legacy_linear": max(f.legacy_linear_A for f in found),
        "defocus": max(max(abs(a.u_A - b.u_A), abs(a.v_A - b.v_A)) for (a, _), (b, _) in pairs),
        "angle": max(angle_difference_deg(a.angle_deg, b.angle_deg) for (a, _), (b, _) in pairs),
        "mean": float(means.mean()),
        "sd": float(means.std(ddof=1)),
    }


def judge(records: Sequence[Record | None], params: ConsensusCtf) -> tuple[dict[str, Any], str | None]:
    """Judge one micrograph.

    Parameters
    ----------
    records : sequence
        Its row in each branch, the primary first; None where a branch lacks it.
    params : ConsensusCtf
        Limits.

    Returns
    -------
    columns : dict
        New or changed columns of the primary row.
    reason : str or None
        Why it is rejected, None if it is accepted.
    """
    primary = records[0]
    if primary is None:
        return {}, "no_primary: the first branch has no estimate of it"
    reasons = limit_reasons(primary, params)
    columns: dict[str, Any] = {"crpCtfBranches": len(records)}
    if len(records) == 1:
        return columns, "; ".join(reasons) or None
    present = [record for record in records if record is not None]
    if len(present) < len(records):
        return columns, "; ".join([*reasons, "no_secondary: another branch has no estimate of it"])
    spread = compare_branches(present, float(primary["rlnMicrographPixelSize"]))
    limit = params.max_agreement_A or _DEFAULT_AGREEMENT_A[params.agreement]
    if spread[params.agreement] > limit:
        reasons.append(
            f"estimates agree to {spread[params.agreement]:.1f} Å only ({params.agreement}), {limit:g} Å is asked for; "
            f"their defoci differ by {spread['defocus']:.0f} Å"
        )
    columns |= dict(zip(_COLUMNS[1:], spread.values(), strict=True))
    if params.average_defocus:
        average = mean_defocus([defocus_of(record)[0] for record in present])
        columns |= {
            "rlnDefocusU": average.u_A,
            "rlnDefocusV": average.v_A,
            "rlnDefocusAngle": average.angle_deg,
            "rlnPhaseShift": float(np.degrees(average.phase_shift_rad)),
        }
    return columns, "; ".join(reasons) or None


def consensus(tables: Sequence[StarTable], params: ConsensusCtf) -> tuple[StarTable, list[Rejection]]:
    """Return the accepted rows of the first table and the rejections; together they hold each item of all tables once.

    Parameters
    ----------
    tables : sequence of StarTable
        Micrographs with CTFs, the primary first. Empty tables are legal.
    params : ConsensusCtf
        Criteria.
    """
    branches = [_by_item(table) for table in tables]
    items = list(dict.fromkeys(itertools.chain.from_iterable(branches)))
    accepted: dict[str, dict[str, Any]] = {}
    rejections = []
    for item in items:
        columns, reason = judge([branch.get(item) for branch in branches], params)
        if reason is None:
            accepted[item] = columns
        else:
            rejections.append(Rejection(item, "rejected", reason))
    primary = tables[0]
    kept = np.array([item in accepted for item in branches[0]], dtype=bool)
    rows = primary.rows[kept].reset_index(drop=True)
    changed = pd.DataFrame(list(accepted.values()), columns=_new_columns(len(tables), params))
    values = {str(name): changed[name].to_numpy() for name in changed}
    return primary.with_rows(rows.assign(**values)), rejections


def _by_item(table: StarTable) -> dict[str, Record]:
    records: dict[str, Record] = {}
    for record in table.with_optics().to_dict("records"):
        item = str(record.get("crpItem", Path(str(record["rlnMicrographName"])).stem))
        if item in records:
            raise InputError(f"micrograph {item} stands twice in one branch. Names must be unique.")
        records[item] = {str(key): value for key, value in record.items()}
    return records


def _new_columns(branches: int, params: ConsensusCtf) -> list[str]:
    names = list(_COLUMNS if branches > 1 else _COLUMNS[:1])
    if branches > 1 and params.average_defocus:
        names += ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift"]
    return names


def main(inputs: dict[str, Any], outputs: dict[str, Path], params: ConsensusCtf, context: Context) -> None:
    """Judge a batch; input ``branches``: one micrograph table per estimator, the first is primary."""
    paths = inputs["branches"] if isinstance(inputs["branches"], list) else [inputs["branches"]]
    accepted, rejections = consensus([read_table(path, "micrographs") for path in paths], params)
    write_table(outputs["micrographs"], accepted)
    write_rejections(outputs["rejected"], rejections)
    context.log.info("%s: %d accepted, %d rejected", context.step, len(accepted), len(rejections))
