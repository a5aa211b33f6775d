"""Step consensus_ctf, its two runs and their parts (the method's acceptance tests)."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cryopipe.config.ctf import (
    ConsensusCtf,
    CtfStage,
    EstimateCtfCtffind,
    EstimateCtfGctf,
    EstimateCtfXmipp,
)
from cryopipe.context import Context
from cryopipe.ctf import (
    consensus_ctf,
    estimate_ctf_ctffind,
    estimate_ctf_gctf,
    estimate_ctf_xmipp,
)
from cryopipe.ctf.consensus.agreement import agreement, angle_difference_deg, largest_agreeing, mean_defocus, spread
from cryopipe.ctf.consensus.branches import Branch
from cryopipe.ctf.consensus.criteria import CRITERIA, MISSING
from cryopipe.ctf.consensus.run import consensus
from cryopipe.ctf.defocus import Defocus, Microscope, from_uv, phase
from cryopipe.errors import InputError
from cryopipe.io.mrc import write_image
from cryopipe.io.star import StarTable, concatenate, make_optics, read_rejections, read_table, write_table
from cryopipe.io.star import write_rejections as write_failures
from cryopipe.items import Rejection
from cryopipe.report.counts import Loss, count, read_losses

SCOPE = Microscope(300.0, 2.7, 0.1)
FIRST = "crpCtfConsensus"
SECOND = "crpCtfEnvelopeConsensus"
Row = tuple[str, float, float, float]
GOOD_XMIPP = {
    "crpCtfFirstZero": 15.0,
    "crpCtfFirstZeroRatio": 1.02,
    "crpCtfEnvelopeResolution": 4.0,
    "crpCtfCorr13": 0.6,
    "crpCtfMargin": 3.0,
    "crpCtfFirstMinFirstZeroRatio": 1.2,
    "crpCtfAstigmaticValidity": 2.0,
    "crpCtfPsdCorr90": 0.8,
    "crpCtfIceness": 0.95,
    "crpCtfDamping": 0.01,
}


def table(rows: list[Row], *, resolution: float = 4.0, pixel: float = 0.495, **columns: Any) -> StarTable:
    frame = pd.DataFrame(
        {
            "rlnMicrographName": [f"{item}.mrc" for item, *_ in rows],
            "rlnOpticsGroup": np.ones(len(rows), dtype=int),
            "crpItem": [item for item, *_ in rows],
            "rlnDefocusU": np.array([r[1] for r in rows], dtype=float),
            "rlnDefocusV": np.array([r[2] for r in rows], dtype=float),
            "rlnDefocusAngle": np.array([r[3] for r in rows], dtype=float),
            "rlnCtfMaxResolution": np.full(len(rows), resolution),
            **{name: [value] * len(rows) for name, value in columns.items()},
        }
    )
    optics = make_optics(voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.1, micrograph_pixel_size_A=pixel)
    return StarTable("micrographs", optics, frame)


def branch(name: str, rows: list[Row], *, failures: dict[str, str] | None = None, **options: Any) -> Branch:
    return Branch(name, table(rows, **options), failures or {})


def judged(*branches: Branch, items: list[str] | None = None, **choices: Any) -> tuple[StarTable, dict[str, Rejection]]:
    """One first pass over these branches; what enters is all that any of them names."""
    names = [b.name for b in branches]
    entering = items or sorted({item for b in branches for item in [*b.rows, *b.failures]})
    params = ConsensusCtf(estimators=names, **choices)
    accepted, rejections = consensus(entering, branches, params, prefix=FIRST)
    assert sorted([*accepted.rows["crpItem"], *(r.item for r in rejections)]) == sorted(entering)
    assert all(r.reason for r in rejections)
    return accepted, {r.item: r for r in rejections}


# --- agreement -------------------------------------------------------------------------------------------------------


def test_the_legacy_value_is_that_of_xmipps_own_test() -> None:
    scope = Microscope(300.0, 2.0, 0.1)
    found = agreement((from_uv(10000, 5400, 45), scope), (from_uv(5000, 5000, 45), scope), 2.0)
    assert found.legacy_linear_A == pytest.approx(13.92166, abs=1e-4)
    assert found.area_A == pytest.approx(7.46, abs=0.01)


def test_the_two_axes_of_one_ctf_part_where_xmipps_own_test_says() -> None:
    found = agreement((from_uv(7500, 7500, 0), SCOPE), (from_uv(6000, 6000, 0), SCOPE), 0.5)
    assert found.crossing_A == pytest.approx(7.6852, abs=1e-3)  # wavelengths differ in the fifth digit


@pytest.mark.parametrize(
    ("difference", "pixel", "crossing", "legacy"),
    [
        (100, 0.495, 1.98, 3.98),
        (500, 0.495, 4.44, 19.9),
        (1000, 0.495, 6.27, 39.8),
        (100, 0.66, 1.98, 2.98),
        (500, 0.66, 4.44, 14.9),
        (1000, 1.0, 6.27, 19.7),
    ],
)
def test_two_defoci_agree_up_to_the_resolution_where_their_phases_part(
    difference: float, pixel: float, crossing: float, legacy: float
) -> None:
    pair = (from_uv(10000 + difference, 10000 + difference, 0), SCOPE), (from_uv(10000, 10000, 0), SCOPE)
    for first, second in (pair, pair[::-1]):
        found = agreement(first, second, pixel)
        assert found.crossing_A == pytest.approx(crossing, abs=0.01)  # √(2 λ δ)
        assert found.legacy_linear_A == pytest.approx(legacy, rel=0.01)


def test_equal_ctfs_agree_to_nyquist_and_astigmatic_ones_are_judged_at_their_worst_azimuth() -> None:
    round_one = (from_uv(12000, 12000, 0), SCOPE)
    assert agreement(round_one, round_one, 0.5).crossing_A == pytest.approx(1.0)
    assert agreement(round_one, (from_uv(12500, 11500, 20), SCOPE), 0.495).crossing_A == pytest.approx(4.44, abs=0.01)


def test_the_full_phases_with_cs_contrast_and_phase_shift_are_compared() -> None:
    """Roots of the polynomial in k² against a fine sampling of the phases themselves."""
    rng = np.random.default_rng(3)
    theta, k = np.pi * np.arange(180) / 180, 0.625 * np.arange(1, 20001) / 20000
    for _ in range(8):
        u, v, angle, shift = rng.normal(12000, 800), rng.normal(12000, 800), rng.uniform(0, 180), rng.uniform(0, 60)
        sides = ((from_uv(u, v, angle, shift), Microscope(300, 2.7, 0.1)), (from_uv(12000, 11800, 10), SCOPE))
        sides = (sides[0], (sides[1][0], Microscope(300, rng.choice([2.0, 2.7]), 0.07)))
        chi = [
            phase((k**2)[None], (d.mean_A + d.a_A * np.cos(2 * theta) + d.b_A * np.sin(2 * theta))[:, None], m,
                  d.phase_shift_rad)
            for d, m in sides
        ]  # fmt: skip
        apart = np.abs(chi[0] - chi[1]) >= np.pi / 2
        found = agreement(*sides, 0.8)
        # 20,000 samples up to 1.6 Å and 1° of azimuth: some 1e-3 of the first crossing
        assert found.crossing_A == pytest.approx(1 / k[apart.any(axis=0).argmax()], rel=2e-3)
        assert found.area_A == pytest.approx(1.6 / np.sqrt((~apart @ k).mean() / k.sum()), rel=2e-3)


def test_phases_that_differ_from_frequency_zero_on_never_agree() -> None:
    found = agreement((from_uv(12000, 12000, 0), SCOPE), (from_uv(12000, 12000, 0, 100.0), SCOPE), 1.0)
    assert found.crossing_A == np.inf
    shifted = branch("gctf", [("a", 12000.0, 12000.0, 0.0)], rlnPhaseShift=100.0)
    first = branch("ctffind", [("a", 12000.0, 12000.0, 0.0)], rlnPhaseShift=0.0)
    _, rejected = judged(first, shifted)
    assert "ctffind and gctf agree only to inf Å" in rejected["a"].reason
    accepted, _ = judged(first, shifted, max_agreement_A=9999.0, min_agreeing=1)
    assert accepted.rows["crpCtfAgreementCtffindGctf"][0] == 9999.0  # STAR files hold no infinity


def test_ctfs_of_different_voltages_are_not_of_one_micrograph() -> None:
    with pytest.raises(InputError, match="300 and 200 kV"):
        agreement((from_uv(1e4, 1e4, 0), SCOPE), (from_uv(1e4, 1e4, 0), Microscope(200, 2.7, 0.1)), 1.0)


def test_defoci_are_averaged_as_tensors() -> None:
    mean = mean_defocus([from_uv(10000, 9000, 0), from_uv(10000, 9000, 60)])
    assert (mean.u_A, mean.v_A, mean.angle_deg) == pytest.approx((9750, 9250, 30))
    crossed = mean_defocus([from_uv(10000, 9000, 0), from_uv(10000, 9000, 90)])
    assert (crossed.u_A, crossed.v_A) == pytest.approx((9500, 9500))
    shifted = mean_defocus([from_uv(1e4, 1e4, 0, 175.0), from_uv(1e4, 1e4, 0, 5.0)])
    assert np.sin(shifted.phase_shift_rad) == pytest.approx(0.0, abs=1e-9)


def test_the_scatter_of_u_and_v_is_taken_along_the_axes_of_the_mean() -> None:
    """Of the second one the larger defocus lies across the mean's: U and V by themselves would scatter by 23 Å."""
    found = spread([Defocus(10000, 60), Defocus(10000, -20), Defocus(10000, 20)])
    assert (found.u_A, found.v_A) == pytest.approx((40.0, 40.0))
    assert (found.mean_A, found.a_A, found.b_A) == pytest.approx((0.0, 40.0, 0.0), abs=1e-9)


def test_the_scatter_recovers_planted_noise_of_the_tensor() -> None:
    rng = np.random.default_rng(5)
    defoci = [Defocus(12000 + rng.normal(0, 60), 150 + rng.normal(0, 20), rng.normal(0, 20)) for _ in range(2000)]
    found = spread(defoci)
    # a standard deviation of 2000 draws is known to 1.6 %; four of them
    assert (found.mean_A, found.a_A, found.b_A) == pytest.approx((60, 20, 20), rel=0.065)
    assert (found.u_A, found.v_A) == pytest.approx((np.hypot(60, 20),) * 2, rel=0.065)


def test_directions_of_axes_differ_by_at_most_ninety_degrees() -> None:
    assert angle_difference_deg(89, -89) == 2
    assert angle_difference_deg(0, 90) == 90


def test_the_largest_agreeing_set_is_found_and_of_equal_sets_the_closest() -> None:
    line = {"a": 0.0, "b": 3.0, "c": 5.0, "d": 20.0, "e": 20.5}
    distances = {(p, q): abs(line[p] - line[q]) for p, q in itertools.combinations(sorted(line), 2)}
    assert largest_agreeing(distances, line, 5.0) == ("a", "b", "c")
    assert largest_agreeing(distances, line, 3.5) == ("d", "e")
    assert largest_agreeing(distances, line, 0.1) == ("a",)
    for order in itertools.permutations(line):
        assert largest_agreeing(distances, order, 3.5) == ("d", "e")


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "resolution", "choices", "reason"),
    [
        (("m", 4200.0, 3900.0, 0.0), 4.0, {}, "defocus 3900 Å is below 4000 Å"),
        (("m", 41000.0, 40500.0, 0.0), 4.0, {}, "defocus 41000 Å is above 40000 Å"),
        (("m", 16500.0, 15000.0, 0.0), 4.0, {"max_astigmatism_A": 1000}, "astigmatism 1500 Å exceeds 1000 Å"),
        (("m", 16500.0, 15000.0, 0.0), 4.0, {}, None),
        (("m", 16700.0, 15000.0, 0.0), 4.0, {}, "astigmatism is 0.107 of the defocus, but 0.1 is allowed"),
        (("m", 10250.0, 9750.0, 0.0), 4.0, {"max_relative_astigmatism": 0.04},
         "astigmatism is 0.050 of the defocus, but 0.04 is allowed"),
        (("m", 10250.0, 9750.0, 0.0), 4.0, {"max_relative_astigmatism": 0.06}, None),
        (("m", 15500.0, 15000.0, 0.0), 9.5, {}, "CTF fitted only to 9.5 Å, but 8 Å is required"),
        (("m", 15500.0, 15000.0, 0.0), 9.5, {"max_resolution_A": None}, None),
        (("m", 15500.0, 15000.0, 0.0), 8.0, {}, None),
    ],
)  # fmt: skip
def test_a_single_branch_is_judged_by_limits_that_the_reason_names(
    row: Row, resolution: float, choices: dict[str, Any], reason: str | None
) -> None:
    _, rejected = judged(branch("ctffind", [row], resolution=resolution), **choices)
    assert [r.reason for r in rejected.values()] == ([reason] if reason else [])


def test_a_swapped_pair_of_defoci_is_judged_like_the_ordered_one() -> None:
    accepted, _ = judged(branch("ctffind", [("m", 15000.0, 15500.0, 10.0)]))
    assert accepted.rows["rlnDefocusV"].tolist() == [15500.0]  # a single estimate goes on as it came


@pytest.mark.parametrize(
    ("column", "value", "parameter", "limit"),
    [
        ("crpCtfFirstZero", 4.9, "min_first_zero_A", 5.0),
        ("crpCtfFirstZeroRatio", 1.11, "max_first_zero_ratio", 1.1),
        ("crpCtfFirstZeroRatio", 0.89, "min_first_zero_ratio", 0.9),
        ("crpCtfEnvelopeResolution", 20.1, "max_envelope_resolution_A", 20.0),
        ("crpCtfCorr13", 0.04, "min_corr13", 0.05),
        ("crpCtfMargin", 1.4, "min_margin", 1.5),
        ("crpCtfFirstMinFirstZeroRatio", 10.1, "max_first_min_first_zero_ratio", 10.0),
        ("crpCtfAstigmaticValidity", 9.1, "max_astigmatic_validity_A", 9.0),
        ("crpCtfPsdCorr90", 0.09, "min_psd_corr90", 0.1),
        ("crpCtfIceness", 1.04, "max_iceness", 1.03),
    ],
)
def test_each_of_xmipps_criteria_rejects_beyond_its_limit_and_is_skipped_without_its_column(
    column: str, value: float, parameter: str, limit: float
) -> None:
    row = [("m", 15500.0, 15000.0, 0.0)]
    choices = {parameter: limit}
    _, rejected = judged(branch("xmipp", row, **(GOOD_XMIPP | {column: value})), **choices)
    assert f"{value:.3g}" in rejected["m"].reason
    assert f" {limit:g}" in rejected["m"].reason
    for columns in (GOOD_XMIPP, {}, {column: MISSING}):
        accepted, _ = judged(branch("xmipp", row, **columns), **choices)
        assert len(accepted) == 1
    off, _ = judged(branch("xmipp", row, **(GOOD_XMIPP | {column: value})), **{parameter: None})
    assert len(off) == 1


def test_every_criterion_names_limits_that_the_configuration_has() -> None:
    for criterion in CRITERIA:
        for name in filter(None, (criterion.lower, criterion.upper)):
            assert name in ConsensusCtf.model_fields


# --- several branches ------------------------------------------------------------------------------------------------


def planted() -> tuple[Branch, Branch]:
    rng = np.random.default_rng(0)
    first, second = [], []
    for i in range(30):
        u = rng.uniform(8000, 20000)
        first.append((f"m{i:02d}", u, u - 100, 20.0))
        d = 3000.0 if i == 12 else rng.normal(0, 80)
        second.append((f"m{i:02d}", u + d, u + d - 100, 20.0))
    return branch("ctffind", first), branch("gctf", second)


@pytest.mark.parametrize("criterion", ["crossing", "legacy_linear"])
def test_exactly_the_planted_disagreement_is_rejected_in_any_order_of_rows(criterion: str) -> None:
    first, second = planted()
    accepted, rejected = judged(first, second, agreement=criterion)
    assert list(rejected) == ["m12"]
    assert "their defoci differ by 3000 Å" in rejected["m12"].reason
    shuffled = second.table.with_rows(second.table.rows.sample(frac=1, random_state=1))
    again, _ = judged(first, Branch("gctf", shuffled, {}), agreement=criterion)
    pd.testing.assert_frame_equal(again.rows, accepted.rows)
    assert accepted.rows[f"{FIRST}DefocusDifference"].max() < 400


def three(*defoci: float, **options: Any) -> list[Branch]:
    return [
        branch(name, [("a", u, u - 100, 20.0)], **options)
        for name, u in zip(("ctffind", "gctf", "xmipp"), defoci, strict=True)
    ]


def test_two_of_three_that_agree_overrule_the_third_whatever_the_order_of_branches() -> None:
    branches = three(15000.0, 10000.0, 10060.0)
    results = [judged(*order)[0].rows for order in itertools.permutations(branches)]
    columns = [name for name in results[0] if str(name).startswith((FIRST, "crpCtfAgreement"))]
    for rows in results:
        assert list(rows["crpItem"]) == ["a"]
        pd.testing.assert_frame_equal(rows[columns], results[0][columns])
        assert rows[f"{FIRST}Agreeing"][0] == "gctf+xmipp"
        assert (rows["rlnDefocusU"][0], rows["crpCtfDefocusFrom"][0]) == (10030.0, "gctf+xmipp")
    first, _ = judged(*branches, defocus_from="first")
    assert (first.rows["rlnDefocusU"][0], first.rows["crpCtfDefocusFrom"][0]) == (10000.0, "gctf")
    assert results[0]["crpCtfAgreementCtffindGctf"][0] == pytest.approx(14.03, abs=0.01)  # √(2 λ 5000)
    _, rejected = judged(*branches, min_agreeing=3)
    assert "2 of 3 estimates agree, but 3 are required" in rejected["a"].reason
    _, rejected = judged(*three(10000.0, 12000.0, 14000.0))
    assert "1 of 3 estimates agree, but 2 are required" in rejected["a"].reason


def test_combined_values_and_their_uncertainty_are_those_of_the_agreeing_estimates() -> None:
    accepted, _ = judged(*three(10000.0, 10030.0, 10090.0))
    row = accepted.rows.iloc[0]
    sd = np.std([0.0, 30.0, 90.0], ddof=1)
    for name, mean in (("DefocusU", 10040.0), ("DefocusV", 9940.0), ("DefocusMean", 9990.0)):
        assert row[f"{FIRST}{name}"] == pytest.approx(mean)
        assert row[f"{FIRST}{name}Sd"] == pytest.approx(sd)
    assert row[f"{FIRST}DefocusAngle"] == pytest.approx(20.0)
    assert row[f"{FIRST}AstigmatismX"] == pytest.approx(50 * np.cos(np.radians(40)))
    assert row[f"{FIRST}AstigmatismY"] == pytest.approx(50 * np.sin(np.radians(40)))
    assert row[f"{FIRST}AstigmatismXSd"] == pytest.approx(0.0, abs=1e-9)
    assert row["crpCtfXmippDefocusU"] == 10090.0


def stating(name: str, u: float, error: float, *, item: str = "a") -> Branch:
    """Return a branch with one micrograph whose estimate states an error."""
    return branch(name, [(item, u, u - 100, 20.0)], crpCtfDefocusMeanError=error, crpCtfAstigmatismError=error)


def test_estimates_are_weighed_by_their_stated_errors_and_the_result_states_its_own() -> None:
    names = ("ctffind", "gctf", "xmipp")
    branches = [
        stating(n, u, e) for n, u, e in zip(names, (10060.0, 10000.0, 10020.0), (60.0, 15.0, 20.0), strict=True)
    ]
    row = judged(*branches)[0].rows.iloc[0]
    assert row["crpCtfCtffindWeight"] == 0.0
    assert row["crpCtfGctfWeight"] + row["crpCtfXmippWeight"] == pytest.approx(1.0)
    assert row["crpCtfGctfWeight"] > row["crpCtfXmippWeight"] > 0.1
    assert row["rlnDefocusU"] == pytest.approx(10000.0 + 20.0 * row["crpCtfXmippWeight"])
    assert 12.0 < row["crpCtfDefocusMeanError"] < 15.0  # below that of the best
    assert row["crpCtfGctfDefocusMeanError"] == 15.0
    assert (row[f"{FIRST}OutVoted"], row["crpCtfDefocusFrom"]) == ("none", "ctffind+gctf+xmipp")
    plain = judged(*branches, defocus_from="mean")[0].rows.iloc[0]
    assert plain["rlnDefocusU"] == pytest.approx(10026.67, abs=0.01)
    assert plain["crpCtfDefocusMeanError"] > row["crpCtfDefocusMeanError"]


def test_an_estimate_in_a_wrong_ring_or_against_its_error_is_out_voted_and_named() -> None:
    for wrong in (12000.0, 10300.0):  # another ring; the same ring, but 15 standard deviations away
        branches = [stating("ctffind", wrong, 5.0), stating("gctf", 10000.0, 15.0), stating("xmipp", 10020.0, 15.0)]
        for order in itertools.permutations(branches):
            row = judged(*order)[0].rows.iloc[0]
            assert row[f"{FIRST}OutVoted"] == "ctffind"
            assert row["crpCtfDefocusFrom"] == "gctf+xmipp"
            assert row["crpCtfCtffindWeight"] == 0.0
            assert row["rlnDefocusU"] == pytest.approx(10010.0)
    two, _ = judged(stating("ctffind", 10300.0, 5.0), stating("gctf", 10000.0, 15.0))
    assert two.rows[f"{FIRST}OutVoted"][0] == "none"
    _, rejected = judged(stating("ctffind", 12000.0, 5.0), stating("gctf", 10000.0, 15.0))
    assert "agree only to" in rejected["a"].reason


def test_an_estimate_without_an_error_counts_as_little_as_the_worst_with_one() -> None:
    row = judged(stating("ctffind", 10000.0, 20.0), stating("gctf", 10000.0, 10.0), stating("xmipp", 10040.0, MISSING))[
        0
    ]
    weights = [row.rows[f"crpCtf{name}Weight"][0] for name in ("Ctffind", "Gctf", "Xmipp")]
    assert weights[2] == pytest.approx(weights[0])
    assert weights[1] > weights[2]
    nobody = judged(*(stating(n, u, MISSING) for n, u in (("ctffind", 10000.0), ("gctf", 10050.0))))[0].rows.iloc[0]
    assert (nobody["rlnDefocusU"], nobody["crpCtfDefocusMeanError"]) == (10025.0, MISSING)


def test_failures_of_branches_are_accounted_for_once_with_what_each_says() -> None:
    row: list[Row] = [("b", 1e4, 9900.0, 0.0)]
    first = branch("ctffind", [*row, ("a", 1e4, 9900.0, 0.0)], failures={"c": "flat micrograph", "d": "not finite"})
    second = branch("gctf", [*row, ("d", 1e4, 9900.0, 0.0)], failures={"a": "too small", "c": "flat micrograph"})
    accepted, rejected = judged(first, second)
    assert list(accepted.rows["crpItem"]) == ["b"]
    assert rejected["a"] == Rejection("a", "rejected", "no estimate from gctf: too small")
    assert rejected["d"] == Rejection("d", "rejected", "no estimate from ctffind: not finite")
    both = "no estimate from ctffind: flat micrograph; no estimate from gctf: flat micrograph"
    assert rejected["c"] == Rejection("c", "quarantined", both)


def test_a_micrograph_that_no_branch_names_is_accounted_for_too_and_a_foreign_one_is_left_alone() -> None:
    first, second = branch("ctffind", [("x", 1e4, 9900.0, 0.0)]), branch("gctf", [("x", 1e4, 9900.0, 0.0)])
    accepted, rejected = judged(first, second, items=["lost"])
    assert len(accepted) == 0
    assert "no estimate from ctffind: the micrograph is not in its table" in rejected["lost"].reason


def test_one_failure_of_three_does_not_cost_the_micrograph() -> None:
    first, second, third = three(10000.0, 10030.0, 10090.0, crpOwn=3.0)
    nothing = Branch("ctffind", first.table.with_rows(first.table.rows.iloc[:0]), {"a": "flat"})
    accepted, _ = judged(nothing, second, third)
    row = accepted.rows.iloc[0]
    assert (row[f"{FIRST}Estimates"], row[f"{FIRST}Agreeing"], row["rlnDefocusU"]) == (2, "gctf+xmipp", 10060.0)
    assert row["crpCtfCtffindDefocusU"] == MISSING
    assert row["crpOwn"] == 3.0
    whole, _ = judged(first, second, third)
    concatenate([accepted, whole])  # batches with and without the failure have the same columns


def test_the_defocus_that_goes_on_is_the_one_that_is_asked_for() -> None:
    first, second = branch("ctffind", [("a", 1e4, 9000.0, 0.0)]), branch("gctf", [("a", 1e4, 9000.0, 60.0)])
    for choice, u, angle, source in (
        ("first", 10000.0, 0.0, "ctffind"),
        ("gctf", 10000.0, 60.0, "gctf"),
        ("mean", 9750.0, 30.0, "ctffind+gctf"),
    ):
        found, _ = judged(first, second, defocus_from=choice, max_agreement_A=20.0)
        row = found.rows.iloc[0]
        assert (row["rlnDefocusU"], row["rlnDefocusAngle"]) == pytest.approx((u, angle))
        assert row["crpCtfDefocusFrom"] == source


def test_columns_that_the_first_lacks_are_copied_where_asked_and_never_overwritten() -> None:
    first = branch("ctffind", [("a", 1e4, 9900.0, 0.0)], rlnCtfImage="first.mrc")
    second = branch("gctf", [("a", 1e4, 9900.0, 0.0)], rlnCtfImage="second.mrc", rlnCtfValidationScore=0.9)
    plain, _ = judged(first, second)
    assert "rlnCtfValidationScore" not in plain.rows
    with_more, _ = judged(first, second, include_secondary=True)
    row = with_more.rows.iloc[0]
    assert (row["rlnCtfValidationScore"], row["rlnCtfImage"]) == (0.9, "first.mrc")
    assert row["crpCtfGctfImage"] == "second.mrc"


def test_a_table_without_ctfs_and_a_repeated_name_are_refused() -> None:
    bare = table([("a", 1e4, 9e3, 0.0)])
    with pytest.raises(InputError, match="lacks rlnDefocusU"):
        judged(Branch("ctffind", bare.with_rows(bare.rows.drop(columns="rlnDefocusU")), {}))
    with pytest.raises(InputError, match="a occurs twice in branch ctffind"):
        judged(branch("ctffind", [("a", 1e4, 9e3, 0.0), ("a", 1e4, 9e3, 0.0)]))
    with pytest.raises(InputError, match="a occurs twice"):
        judged(branch("ctffind", [("a", 1e4, 9e3, 0.0)]), items=["a", "a"])


# --- the steps -------------------------------------------------------------------------------------------------------


#: Parameters of the second run, as the stage has them by default.
ENVELOPE = CtfStage().consensus_ctf[1]


def write_branch(folder: Path, found: Branch) -> tuple[Path, Path]:
    paths = folder / f"{found.name}.star", folder / f"{found.name}.tsv"
    write_table(paths[0], found.table)
    write_failures(paths[1], [Rejection(item, "quarantined", why) for item, why in found.failures.items()])
    return paths


def run_step(folder: Path, module: Any, params: ConsensusCtf, entering: Path, paths: list[tuple[Path, Path]]) -> Any:
    step = "_".join(filter(None, (module.__name__.rsplit(".", 1)[-1], params.run)))
    outputs = {"micrographs": folder / f"{step}.star", "rejected": folder / f"{step}.tsv"}
    inputs = {"micrographs": entering, "branches": [p[0] for p in paths], "failures": [p[1] for p in paths]}
    module.main(inputs, outputs, params, Context(step=step, work_dir=folder, log=logging.getLogger("test")))
    return outputs


@pytest.mark.parametrize("names", [["ctffind"], ["ctffind", "gctf"], ["gctf", "xmipp", "ctffind"]])
def test_the_step_reads_and_writes_tables_also_empty_ones(tmp_path: Path, names: list[str]) -> None:
    params = ConsensusCtf(estimators=names)
    batches = []
    for rows in ([("a", 1e4, 9900.0, 0.0), ("b", 1e4, 8000.0, 0.0)], []):
        paths = [write_branch(tmp_path, branch(name, rows)) for name in names]
        outputs = run_step(tmp_path, consensus_ctf, params, paths[0][0], paths)
        batches.append(read_table(outputs["micrographs"], "micrographs"))
        assert list(batches[-1].rows["crpItem"]) == [r[0] for r in rows[:1]]
        assert [r.item for r in read_rejections(outputs["rejected"])] == [r[0] for r in rows[1:]]
    assert list(batches[0].rows) == list(batches[1].rows)
    concatenate(batches)


def test_the_second_pass_joins_the_envelope_of_one_with_the_defocus_of_the_other(tmp_path: Path) -> None:
    a, b, c, d = "abcd"
    first = branch("ctffind", [(a, 1e4, 9900.0, 0.0), (b, 1e4, 8000.0, 0.0), (c, 1e4, 9900.0, 5.0), (d, 9e3, 9e3, 0.0)],
                   resolution=3.5, rlnCtfFigureOfMerit=0.1, rlnCtfImage="ctffind.mrc")  # fmt: skip
    second = branch("gctf", [(i, u + 40, v + 40, t) for i, u, v, t in [(a, 1e4, 9900.0, 0.0), (b, 1e4, 8000.0, 0.0),
                    (c, 1e4, 9900.0, 5.0), (d, 9e3, 9e3, 0.0)]], rlnCtfImage="gctf.mrc")  # fmt: skip
    paths = [write_branch(tmp_path, found) for found in (first, second)]
    one = run_step(tmp_path, consensus_ctf, ConsensusCtf(defocus_from="mean"), paths[0][0], paths)
    xmipp = branch("xmipp", [(a, 10200.0, 9800.0, 0.0), (b, 1e4, 8000.0, 0.0), (d, 9e3, 9e3, 0.0)],
                   failures={c: "no rings"}, rlnCtfImage="xmipp.mrc", **GOOD_XMIPP)  # fmt: skip
    xmipp.table.rows.loc[2, "crpCtfEnvelopeResolution"] = 25.0
    both = [write_branch(tmp_path, xmipp), (one["micrographs"], one["rejected"])]
    two = run_step(tmp_path, consensus_ctf, ENVELOPE, one["micrographs"], both)
    row = read_table(two["micrographs"], "micrographs").rows.iloc[0]
    assert (row["rlnDefocusU"], row["crpCtfDefocusFrom"]) == (pytest.approx(10020.0), "ctffind+gctf")
    assert (row["crpCtfEnvelopeResolution"], row["crpCtfEnvelopeFrom"]) == (4.0, "xmipp")
    assert row["rlnCtfImage"] == "xmipp.mrc"
    assert row["rlnCtfMaxResolution"] == 3.5  # it belongs to the fit that gave the defocus
    assert row["rlnCtfFigureOfMerit"] == 0.1
    assert row[f"{FIRST}DefocusUSd"] == pytest.approx(40 / np.sqrt(2))
    assert row[f"{SECOND}Agreeing"] == "consensus_ctf+xmipp"
    assert {"crpCtfAgreementCtffindGctf", "crpCtfAgreementConsensusXmipp", "crpCtfXmippDefocusU"} <= set(row.index)
    rejected = [{r.item: r.reason for r in read_rejections(found["rejected"])} for found in (one, two)]
    # each micrograph leaves once: b in the first pass, c and d in the second, a not at all
    assert [sorted(found) for found in rejected] == [[b], [c, d]]
    assert rejected[1][c] == "no estimate from xmipp: no rings"
    assert rejected[1][d] == "envelope ends at 25 Å is above 20 Å"


def test_without_a_second_opinion_asked_for_the_consensus_goes_on_without_an_envelope(tmp_path: Path) -> None:
    rows: list[Row] = [("a", 1e4, 9900.0, 0.0)]
    paths = [write_branch(tmp_path, branch(name, rows)) for name in ("ctffind", "gctf")]
    one = run_step(tmp_path, consensus_ctf, ConsensusCtf(), paths[0][0], paths)
    nothing = Branch("xmipp", table([], **GOOD_XMIPP), {"a": "no rings"})
    nothing.table.rows["crpCtfEnvelopeResolution"] = np.zeros(0)
    both = [write_branch(tmp_path, nothing), (one["micrographs"], one["rejected"])]
    params = ENVELOPE.model_copy(update={"min_agreeing": 1})
    two = run_step(tmp_path, consensus_ctf, params, one["micrographs"], both)
    row = read_table(two["micrographs"], "micrographs").rows.iloc[0]
    assert (row["rlnDefocusU"], row["crpCtfEnvelopeFrom"]) == (1e4, "none")


def test_a_micrograph_that_every_estimator_fails_on_leaves_the_stage_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The three estimators and both passes as the workflow chains them, on a flat micrograph and on noise."""
    monkeypatch.chdir(tmp_path)
    images = {"flat": np.ones((384, 384)), "noise": np.random.default_rng(1).normal(size=(384, 384))}
    for item, image in images.items():
        write_image(Path(f"{item}.mrc"), image.astype(np.float32), 1.4)
    entering = table([("flat", 0, 0, 0), ("noise", 0, 0, 0)], pixel=1.4)
    bare = [name for name in entering.rows if str(name).startswith(("rlnDefocus", "rlnCtf"))]
    write_table("in.star", entering.with_rows(entering.rows.drop(columns=bare)))
    lists, params = {}, {"ctffind": EstimateCtfCtffind(box=256), "gctf": EstimateCtfGctf(), "xmipp": EstimateCtfXmipp()}
    for module in (estimate_ctf_ctffind, estimate_ctf_gctf, estimate_ctf_xmipp):
        step = module.__name__.rsplit(".", 1)[-1]
        name = step.removeprefix("estimate_ctf_")
        context = Context(step=step, work_dir=Path(step), log=logging.getLogger("test"), max_failed_fraction=1.0)
        lists[name] = (Path(step, "out.star"), Path(step, "rejected.tsv"))
        outputs = dict(zip(("micrographs", "rejected"), lists[name], strict=True))
        module.main({"micrographs": Path("in.star")}, outputs, params[name], context)
        assert [r.item for r in read_rejections(lists[name][1])] == ["flat"]
    one = run_step(tmp_path, consensus_ctf, ConsensusCtf(), Path("in.star"), [lists["ctffind"], lists["gctf"]])
    both = [lists["xmipp"], (one["micrographs"], one["rejected"])]
    two = run_step(tmp_path, consensus_ctf, ENVELOPE, one["micrographs"], both)
    losses = read_losses({f"estimate_ctf_{name}": [paths[1]] for name, paths in lists.items()})
    losses += [Loss(step, "micrographs", *row) for step, out in (("consensus_ctf/defocus", one), ("consensus_ctf/envelope", two))
               for row in read_rejections(out["rejected"])]  # fmt: skip
    accepted = len(read_table(two["micrographs"], "micrographs"))
    steps = [*(f"estimate_ctf_{name}" for name in lists), "consensus_ctf/defocus", "consensus_ctf/envelope"]
    counts, _ = count(losses, accepted={"micrographs": accepted}, steps=steps)
    assert counts["micrographs"] == {"in": 2, "accepted": 0, "rejected": 2}
    kinds = {loss.item: loss.kind for loss in losses if loss.step == "consensus_ctf/defocus"}
    assert kinds == {"flat": "quarantined", "noise": "rejected"}


def test_branches_without_their_lists_or_with_other_optics_are_refused(tmp_path: Path) -> None:
    good = write_branch(tmp_path, branch("ctffind", [("a", 1e4, 9900.0, 0.0)]))
    other = write_branch(tmp_path, branch("gctf", [("a", 1e4, 9900.0, 0.0)], pixel=1.1))
    with pytest.raises(InputError, match="the optics groups of branches ctffind and gctf differ"):
        run_step(tmp_path, consensus_ctf, ConsensusCtf(), good[0], [good, other])
    with pytest.raises(InputError, match=r"2 branches \(ctffind, gctf\), but 1 tables and 1 lists"):
        run_step(tmp_path, consensus_ctf, ConsensusCtf(), good[0], [good])


# --- the configuration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimators", [[], ["gctf", "gctf"]])
def test_a_list_without_or_with_repeated_estimators_is_refused(estimators: list[str]) -> None:
    with pytest.raises(ValueError, match="at least one estimator, each once"):
        ConsensusCtf(estimators=estimators)


@pytest.mark.parametrize(
    "choices",
    [{"defocus_from": "consensus_ctf"}, {"envelope_from": "xmipp"},
     {"start_from": "defocus", "estimators": ["xmipp"], "defocus_from": "gctf"}],
)  # fmt: skip
def test_a_choice_that_is_not_a_branch_is_refused(choices: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"but the branches are"):
        ConsensusCtf(**choices)


@pytest.mark.parametrize(("count", "needed"), [(1, 1), (2, 2), (3, 2)])
def test_more_than_half_of_the_branches_have_to_agree_and_both_of_two(count: int, needed: int) -> None:
    assert ConsensusCtf(estimators=["ctffind", "gctf", "xmipp"][:count]).needed == needed
    assert ConsensusCtf(estimators=["ctffind", "gctf", "xmipp"][:count], min_agreeing=3).needed == count


def test_an_estimator_takes_part_in_the_defocus_and_gives_the_envelope() -> None:
    runs = CtfStage().consensus_ctf
    assert [run.estimators for run in runs] == [["ctffind", "gctf", "xmipp"], ["xmipp"]]
    assert (runs[0].defocus_from, runs[1].defocus_from) == ("weighted", "consensus_ctf")
    assert EstimateCtfXmipp().asks_for() == []  # it starts from nothing, so its opinion is its own
    assert EstimateCtfXmipp(previous_from="ctffind").asks_for() == ["estimate_ctf_ctffind"]


def test_an_estimator_that_no_step_is_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="not a branch of estimators; choose from ctffind, gctf, xmipp"):
        ConsensusCtf(estimators=["ctfind"])
