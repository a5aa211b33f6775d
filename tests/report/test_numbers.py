"""The counts of the report add up, or the report refuses to be written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cryopipe.errors import CryopipeError
from cryopipe.io.star import write_rejections
from cryopipe.items import Rejection
from cryopipe.report.numbers import Loss, costs, count, parameters, read_losses

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
        Loss("consensus_ctf/defocus", "micrographs", "b", "rejected", "no estimate by gctf"),
        Loss("consensus_ctf/envelope", "micrographs", "c", "rejected", "iceness"),
    ]
    counts, rows = count(losses, accepted={"micrographs": 7}, steps=steps)
    assert counts["micrographs"] == {"in": 10, "accepted": 7, "rejected": 3}
    assert [(row["in"], row["rejected"]) for row in rows] == [(10, 1), (10, 2), (10, 1), (10, 2), (8, 1)]


def test_a_picker_whose_picks_do_not_go_on_is_counted_and_loses_nothing() -> None:
    losses = [
        Loss("pick_log", "micrographs", "a", "quarantined", "flat"),
        Loss("pick_log", "micrographs", "b", "rejected", "no picks"),
        Loss("extract_particles", "particles", "1@c", "rejected", "outside"),
    ]
    steps = ["import_micrographs", "pick_log", "extract_particles"]
    counts, rows = count(losses, accepted={"micrographs": 3, "particles": 9}, steps=steps, aside={"pick_log"})
    assert counts["micrographs"] == {"in": 3, "accepted": 3, "rejected": 0}
    assert {row["step"]: (row["in"], row["rejected"]) for row in rows}["pick_log"] == (3, 2)


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


def test_costs_sum_the_jobs_of_a_step(tmp_path: Path) -> None:
    folder = tmp_path / "movies" / "align_movies"
    folder.mkdir(parents=True)
    for i, memory in enumerate(("100.5", "-"), 1):
        (folder / f"batch_{i:04d}.tsv").write_text(f"s\th:m:s\tmax_rss\tcpu_time\n{10 * i}.0\t0:00:10\t{memory}\t5.0\n")
    assert costs(tmp_path) == [
        {"step": "align_movies", "jobs": 2, "seconds": 30.0, "cpu_seconds": 10.0, "max_rss_MB": 100.5}
    ]


def test_the_runs_of_a_step_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for run in ("defocus", "envelope"):
        folder = tmp_path / "benchmarks" / "ctf" / "consensus_ctf" / run
        folder.mkdir(parents=True)
        (folder / "batch_0001.tsv").write_text("s\tmax_rss\tcpu_time\n1.0\t2.0\t3.0\n")
        write_rejections(folder / "batch_0001_rejected.tsv", [Rejection(f"m_{run}", "rejected", "ice")])
    names = ["consensus_ctf/defocus", "consensus_ctf/envelope"]
    assert sorted(row["step"] for row in costs(tmp_path / "benchmarks") if row["seconds"]) == names
    losses = read_losses(sorted((tmp_path / "benchmarks").rglob("*_rejected.tsv")))
    assert [(loss.step, loss.unit, loss.item) for loss in losses] == [
        ("consensus_ctf/defocus", "micrographs", "m_defocus"), ("consensus_ctf/envelope", "micrographs", "m_envelope"),
    ]  # fmt: skip


def test_parameters_come_from_the_provenance_beside_the_outputs(tmp_path: Path) -> None:
    record = {"step": "pick_log", "params": {"threshold": 1.5, "paths": ["long"]}}
    (tmp_path / "a.star.provenance.json").write_text(json.dumps(record))
    assert parameters(tmp_path) == {"pick_log": {"threshold": 1.5}}
