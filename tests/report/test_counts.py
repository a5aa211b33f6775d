"""The counts of the report add up, or the report refuses to be written."""

from __future__ import annotations

import pytest

from cryopipe.errors import CryopipeError
from cryopipe.report.counts import Loss, count, side_branches

STEPS = ["import_movies", "align_movies", "screen_motion", "estimate_ctf_ctffind", "consensus_ctf", "extract_particles",
         "select_classes_2d"]  # fmt: skip
LOSSES = [
    Loss("import_movies", "movies", "m3", "quarantined", "truncated after frame 3"),
    Loss("screen_motion", "movies", "m7", "rejected", "range 31.2 A above 15"),
    Loss("consensus_ctf", "micrographs", "m8", "rejected", "fit resolution 22.1 A"),
    *[Loss("extract_particles", "particles", f"m1:{i}", "rejected", f"outside by {i} px") for i in range(4)],
]


def test_what_goes_in_is_what_is_accepted_plus_what_is_rejected_at_every_step() -> None:
    counts, rows = count(LOSSES, accepted={"movies": 8, "micrographs": 7, "particles": 96}, steps=STEPS)
    assert counts["movies"] == {"in": 10, "accepted": 8, "rejected": 2}
    assert counts["micrographs"] == {"in": 8, "accepted": 7, "rejected": 1}
    assert counts["particles"] == {"in": 100, "accepted": 96, "rejected": 4}
    assert all(row["in"] == row["accepted"] + row["rejected"] for row in rows)
    by_step = {row["step"]: row for row in rows}
    assert (by_step["align_movies"]["in"], by_step["screen_motion"]["in"]) == (9, 9)


def test_failures_of_branches_side_by_side_are_counted_once_where_they_join() -> None:
    steps = [
        "estimate_ctf_ctffind",
        "estimate_ctf_gctf",
        "estimate_ctf_xmipp",
        "consensus_ctf/defocus",
        "consensus_ctf/envelope",
    ]
    losses = [
        Loss("estimate_ctf_ctffind", "micrographs", "a", "quarantined", "flat"),
        Loss("estimate_ctf_gctf", "micrographs", "a", "quarantined", "flat"),
        Loss("estimate_ctf_gctf", "micrographs", "b", "quarantined", "too small"),
        Loss("estimate_ctf_xmipp", "micrographs", "d", "quarantined", "flat"),
        Loss("consensus_ctf/defocus", "micrographs", "a", "quarantined", "no estimate"),
        Loss("consensus_ctf/defocus", "micrographs", "b", "rejected", "no estimate from gctf"),
        Loss("consensus_ctf/envelope", "micrographs", "c", "rejected", "iceness"),
    ]
    counts, rows = count(losses, accepted={"micrographs": 7}, steps=steps)
    assert counts["micrographs"] == {"in": 10, "accepted": 7, "rejected": 3}
    assert [(row["in"], row["rejected"]) for row in rows] == [(10, 1), (10, 2), (10, 1), (10, 2), (8, 1)]


def test_an_item_that_two_steps_lost_stops_the_report() -> None:
    twice = [*LOSSES, Loss("screen_motion", "movies", "m3", "rejected", "range 31.2 A above 15")]
    with pytest.raises(CryopipeError, match="m3 is lost in import_movies and again in screen_motion"):
        count(twice, accepted={"movies": 7, "micrographs": 6, "particles": 96}, steps=STEPS)


def test_like_reasons_count_together() -> None:
    _, rows = count(LOSSES, accepted={"movies": 8, "micrographs": 7, "particles": 96}, steps=STEPS)
    assert next(row for row in rows if row["step"] == "extract_particles")["reasons"] == {"outside by … px": 4}


def test_a_lost_micrograph_without_a_record_stops_the_report() -> None:
    with pytest.raises(CryopipeError, match="8 movies were accepted, but 7 micrographs entered"):
        count(LOSSES, accepted={"movies": 8, "micrographs": 6, "particles": 96}, steps=STEPS)


def test_a_picker_whose_picks_go_on_accounts_for_itself_and_one_beside_it_does_not(toy_picker: str) -> None:
    assert side_branches(["pick_log"], ["pick_log"]) == frozenset()
    assert side_branches(["pick_log", toy_picker], ["pick_log"]) == {toy_picker}
    losses = [
        Loss("pick_log", "micrographs", "a", "rejected", "no picks"),
        Loss(toy_picker, "micrographs", "a", "rejected", "no picks"),
        Loss(toy_picker, "micrographs", "b", "rejected", "no picks"),
    ]
    counts, rows = count(losses, accepted={"micrographs": 4}, steps=["pick_log", toy_picker], goes_on=["pick_log"])
    assert counts["micrographs"] == {"in": 5, "accepted": 4, "rejected": 1}
    assert [(row["step"], row["accepted"], row["rejected"]) for row in rows] == [("pick_log", 4, 1), (toy_picker, 2, 2)]


def test_runs_of_a_step_are_counted_one_after_the_other() -> None:
    losses = [
        Loss("consensus_ctf/defocus", "micrographs", "a", "rejected", "agree only to 9 Å"),
        Loss("consensus_ctf/envelope", "micrographs", "b", "rejected", "iceness 1.4"),
    ]
    steps = ["consensus_ctf/defocus", "consensus_ctf/envelope"]
    counts, rows = count(losses, accepted={"micrographs": 3}, steps=steps)
    assert counts["micrographs"] == {"in": 5, "accepted": 3, "rejected": 2}
    assert [(row["step"], row["in"]) for row in rows] == [(steps[0], 5), (steps[1], 4)]


def test_a_step_that_counts_nothing_is_refused() -> None:
    with pytest.raises(CryopipeError, match="classify_2d is not a step that counts items"):
        count([], accepted={}, steps=["classify_2d"])
