"""The table of what each CTF estimator contributes, and the warning that names an estimate that was out-voted."""

from __future__ import annotations

import pandas as pd
import pytest

from cryopipe.report.parts.ctf_members import member_numbers, member_rows, member_warnings

ITEMS = [f"m{i}" for i in range(8)]


def accepted(**columns: object) -> pd.DataFrame:
    return pd.DataFrame(columns, index=pd.Index(ITEMS, dtype=object))


def test_members_have_their_error_and_weight_without_missing_values() -> None:
    frame = accepted(
        crpCtfGctfDefocusMeanError=[10.0] * 7 + [-9999.0],
        crpCtfGctfWeight=[0.5] * 6 + [0.0, -9999.0],
        crpCtfDefocusMeanError=[8.0] * 8,
    )
    numbers = member_numbers(frame, ["gctf"])
    assert numbers[0] == {"name": "gctf", "out_voted": [], "error_A": 10.0, "weight": pytest.approx(3 / 7, abs=1e-3)}
    assert member_rows(numbers) == [["gctf", "10", "0.43", "0"], ["consensus", "8", "–", "0"]]
    assert member_rows(member_numbers(accepted(), ["gctf"])) == [["gctf", "–", "–", "0"]]


def test_an_estimator_that_was_out_voted_is_named_with_its_micrographs() -> None:
    frame = accepted(crpCtfConsensusOutVoted=["none", "xmipp", *["ctffind+xmipp"] * 6])
    numbers = member_numbers(frame, ["ctffind", "gctf", "xmipp"])
    assert [len(record["out_voted"]) for record in numbers] == [6, 0, 7]
    first, second = member_warnings(numbers)
    assert first.startswith("ctffind contradicts")
    assert first.endswith("m2, m3, m4, m5, m6 and 1 more.")
    assert second.endswith("m1, m2, m3, m4, m5 and 2 more.")
