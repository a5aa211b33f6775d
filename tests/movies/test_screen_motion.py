"""Step screen_motion on hand-made trajectories (the method's acceptance tests)."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopipe.config.movies import ScreenMotion
from cryopipe.context import Context
from cryopipe.errors import CryopipeError, InputError
from cryopipe.io.star import StarTable, make_optics, read_rejections, read_table, write_table
from cryopipe.movies import screen_motion
from cryopipe.movies.motion.measures import find_spike, measure_motion, motion_flag
from cryopipe.movies.motion.star import Motion, write_motion
from cryopipe.movies.screen_motion import rejection_reason, screen


def motion(
    x: list[float], y: list[float] | None = None, *, pixel: float = 1.0, frames: list[int] | None = None
) -> Motion:
    track = np.array([x, y if y is not None else [0.0] * len(x)], dtype=float).T
    return Motion(track, pixel, np.array(frames or range(1, len(x) + 1)))


def legacy(**params: object) -> ScreenMotion:
    """Return the criterion of 2020, whose limits are on the shifts alone."""
    return ScreenMotion.model_validate({"criterion": "legacy2020"} | params)


def rejected(m: Motion, **params: object) -> bool:
    return rejection_reason(measure_motion(m, legacy(**params)), legacy(**params)) is not None


def test_a_step_above_five_angstrom_is_rejected_and_the_reason_names_both_numbers() -> None:
    assert not rejected(motion([0, 4.9]))
    assert not rejected(motion([0, 5.0]))  # a value equal to its limit passes
    assert rejected(motion([0, 5.1]))
    reason = rejection_reason(measure_motion(motion([0, 5.1])), legacy())
    assert reason == "largest step between frames 5.1 Å exceeds 5 Å"


def test_a_diagonal_step_passes_along_axes_and_fails_in_length() -> None:
    diagonal = motion([0, 4], [0, 4])
    assert not rejected(diagonal, max_frame_shift_A=5)
    assert rejected(diagonal, criterion="path", max_frame_shift_A=5)


def test_trembling_passes_by_range_and_fails_by_path() -> None:
    trembling = motion([4.0 * (i % 2) for i in range(50)])
    measures = measure_motion(trembling)
    assert measures.range_max_norm == 4.0
    assert measures.path == pytest.approx(49 * 4)
    assert not rejected(trembling)
    assert rejected(trembling, criterion="path")


@pytest.mark.parametrize(
    ("track", "expected"),
    [
        (motion([0, 1, 2]), {"frame": False, "movie": False, "and": False, "or": False}),
        (motion([0, 6, 1]), {"frame": True, "movie": False, "and": False, "or": True}),
        (motion([0, 4, 8, 12, 16]), {"frame": False, "movie": True, "and": False, "or": True}),
        (motion([0, 16]), {"frame": True, "movie": True, "and": True, "or": True}),
    ],
)
def test_the_two_limits_combine_as_asked(track: Motion, expected: dict[str, bool]) -> None:
    assert {kind: rejected(track, reject=kind) for kind in expected} == expected


def test_measures_scale_with_the_pixel_size_and_ignore_reference_and_sign() -> None:
    x, y = np.random.default_rng(0).normal(0, 2, (2, 20))
    one, two = measure_motion(motion(list(x), list(y))), measure_motion(motion(list(7 - x), list(y + 3), pixel=2.0))
    for name in ("step_max_norm", "step_euclidean", "range_max_norm", "diameter", "path"):
        assert getattr(two, name) == pytest.approx(2 * getattr(one, name))


def test_a_step_across_a_dropped_frame_is_shared_out() -> None:
    assert measure_motion(motion([0, 8], frames=[1, 3])).step_max_norm == 4.0


def test_only_the_planted_drift_is_rejected() -> None:
    rng = np.random.default_rng(1)
    motions: dict[str, Motion | str] = {}
    for i in range(30):
        drift = 30.0 if i == 17 else 8.0
        track = np.linspace(0, drift, 50)[:, None] * np.array([0.8, 0.6]) + rng.normal(0, 0.3, (50, 2))
        motions[f"m{i}"] = Motion(track, 1.0, np.arange(1, 51))
    accepted, rejections = screen(motions, legacy())
    assert [r.item for r in rejections] == ["m17"]
    assert len(accepted) == 29
    assert screen({k: motions[k] for k in accepted}, legacy())[1] == []


def test_rejecting_everything_stops_with_limits_that_would_not() -> None:
    motions: dict[str, Motion | str] = {f"m{i}": motion([0, 30.0 + i]) for i in range(10)}
    with pytest.raises(CryopipeError, match=r"all 10 movies.*max_frame_shift_A 38.0"):
        screen(motions, legacy())


@pytest.mark.parametrize("criterion", ["legacy2020", "path"])
@pytest.mark.parametrize("reject", ["frame", "movie", "and", "or"])
def test_the_limits_that_are_said_to_keep_ninety_percent_do(reject: str, criterion: str) -> None:
    rng = np.random.default_rng(2)
    motions: dict[str, Motion | str] = {
        f"m{i}": motion(list(np.cumsum(rng.uniform(20, 60, 8))), list(rng.uniform(0, 60, 8))) for i in range(40)
    }
    with pytest.raises(CryopipeError) as caught:
        screen(motions, legacy(reject=reject, criterion=criterion))
    advice = {name: float(x) for name, x in re.findall(r"(max_(?:frame|movie)_shift_A) (\d+\.\d)", str(caught.value))}
    assert set(advice) == {
        "frame": {"max_frame_shift_A"}, "movie": {"max_movie_shift_A"},
    }.get(reject, {"max_frame_shift_A", "max_movie_shift_A"})  # fmt: skip
    accepted, _ = screen(motions, legacy(reject=reject, criterion=criterion, **advice))
    assert 36 <= len(accepted) <= 38  # 90 % of 40, and few more by rounding up


def test_a_batch_without_any_trajectory_stops_and_a_small_one_does_not() -> None:
    with pytest.raises(CryopipeError, match=r"none of the 5 movies has a usable trajectory \(m0: no_alignment: gone"):
        screen({f"m{i}": "gone" for i in range(5)}, legacy())
    accepted, rejections = screen({f"m{i}": motion([0, 99]) for i in range(4)}, legacy())
    assert (len(accepted), len(rejections)) == (0, 4)


def test_all_five_measures_of_a_track_are_right() -> None:
    measures = measure_motion(motion([0, 3, 3, 0], [0, 4, 4, 4], pixel=2.0))
    assert (measures.step_max_norm, measures.step_euclidean) == (8.0, 10.0)
    assert (measures.range_max_norm, measures.diameter, measures.path) == (8.0, 10.0, 16.0)


def test_first_frames_can_be_skipped() -> None:
    settling = motion([0, 20, 21, 22, 23, 24], frames=[1, 2, 3, 4, 5, 6])
    assert rejected(settling)
    assert not rejected(settling, skip=1)
    assert measure_motion(settling, legacy(skip=1)).path == 4.0
    assert motion_flag(motion([0, 5, 5, 5]), legacy(skip=1)) == "no_motion"
    reason = screen({"a": settling}, legacy(skip=6))[1][0].reason
    assert reason == "no_alignment: screen_motion.skip 6 skips all 6 frames"


def test_a_frame_that_jumps_out_and_back_is_a_spike_and_left_out_on_request() -> None:
    track = np.arange(20) * 0.2 + 0.1 * np.random.default_rng(3).standard_normal(20)
    spiked = track.copy()
    spiked[7] += 9
    assert find_spike(motion(list(track))) is None
    assert find_spike(motion(list(spiked))) == 7
    assert motion_flag(motion(list(spiked)), legacy()) == "spike"
    assert rejected(motion(list(spiked)))
    assert not rejected(motion(list(spiked)), ignore_spikes=True)
    assert measure_motion(motion(list(spiked)), legacy(ignore_spikes=True)).range_max_norm < 5
    reason = screen({"a": motion(list(spiked))}, legacy())[1][0].reason
    assert reason.endswith("exceeds 5 Å (one frame alone jumps out and back)")


@pytest.mark.parametrize("frames", [slice(7, None), slice(7, 9), slice(0, 1)])
def test_a_jump_that_stays_a_pair_of_frames_and_the_first_frame_are_no_spikes(frames: slice) -> None:
    track = np.arange(20) * 0.2 + 0.1 * np.random.default_rng(4).standard_normal(20)
    track[frames] += 9
    jump = motion(list(track))
    assert find_spike(jump) is None
    assert rejected(jump, ignore_spikes=True)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (motion([0, np.nan, 1]), "shift of frame 2 is not a number"),
        (motion([]), "no frames"),
        (motion([0, 1, 2], frames=[1, 2, 2]), "a frame twice"),
    ],
)
def test_a_trajectory_that_says_nothing_is_no_alignment(broken: Motion, words: str) -> None:
    accepted, rejections = screen({"a": broken}, legacy())
    assert not accepted
    assert rejections[0].reason.startswith("no_alignment: ")
    assert words in rejections[0].reason


def harm(m: Motion) -> str | None:
    return rejection_reason(measure_motion(m, ScreenMotion()), ScreenMotion())


@pytest.mark.parametrize("drift", [15.1, 40.0, 100.0])
def test_a_drift_that_was_followed_is_no_harm_however_long(drift: float) -> None:
    assert harm(motion(list(np.linspace(0, drift, 50)))) is None
    assert rejected(motion(list(np.linspace(0, drift, 50))))


def test_steady_motion_blurs_as_its_sinc_says() -> None:
    for step in (1.0, 4.0, 9.0):
        found = measure_motion(motion(list(step * np.arange(20)))).blur
        # mean over directions of sinc² = 1/2: solved with scipy.integrate and brentq at s k = 0.6883; details are 1.7 % apart
        assert found == pytest.approx(step / 0.6883, rel=0.02)
    assert measure_motion(motion([0.0] * 20)).blur == 0.0


def test_motion_inside_the_frames_is_rejected_where_it_takes_half_of_the_power_at_eight_angstrom() -> None:
    assert harm(motion(list(5.3 * np.arange(16)))) is None
    reason = harm(motion(list(5.7 * np.arange(16))))
    assert reason is not None
    assert re.fullmatch(r"motion inside the frames halves details of 8\.\d Å and finer, the limit is 8 Å", reason)


def test_a_jump_inside_a_frame_is_rejected_by_its_length() -> None:
    track = [0.1 * i + 30.0 * (i >= 8) for i in range(16)]
    assert harm(motion(track)) == "largest step between frames 30.1 Å exceeds 20 Å"
    assert harm(motion([0.1 * i + 12.0 * (i >= 8) for i in range(16)])) is None


def test_early_motion_counts_by_what_early_frames_weigh() -> None:
    early = motion([8.0 * min(i, 12) for i in range(32)])
    late = motion([8.0 * max(i - 19, 0) for i in range(32)])
    weighted = {"dose_per_frame_e_A2": 1.5, "pre_exposure_e_A2": 0.0}
    assert measure_motion(early).blur == measure_motion(late).blur
    before, after = (measure_motion(replace(m, **weighted)).blur for m in (early, late))
    assert before > 2 * after


def test_frames_that_share_nothing_and_noise_are_rejected_in_words(tmp_path: Path) -> None:
    line = np.stack([np.arange(16.0), np.zeros(16)], axis=1)
    path = make_table(tmp_path, {"good": line, "torn": line, "noise": 0 * line, "some": line, "old": line})
    table = read_table(path, "micrographs")
    rows = table.rows.assign(
        crpAlignmentEvidence=[900.0, 800.0, -41.0, 900.0, 1.0], crpFramesLost=[0, 8, 0, 4, 0], crpFrames=16
    )
    write_table(path, table.with_rows(rows))
    accepted, rejections = run(tmp_path, path, ScreenMotion())
    assert list(accepted.rows["crpItem"]) == ["good", "some", "old"]
    assert {r.item: r.reason for r in rejections} == {
        "torn": "8 of 16 frames share nothing with the others (0.50 exceeds 0.29)",
        "noise": "the frames share no more than noise (evidence -41, 0 is required)",
    }
    every, _ = run(tmp_path, path, ScreenMotion(min_evidence=None, max_lost_frames=None))
    assert len(every.rows) == 5
    in_2020, _ = run(tmp_path, path)
    assert list(in_2020.rows["crpItem"]) == ["noise"]  # the others travel 30 Å; zero shifts pass


def make_table(folder: Path, tracks: dict[str, np.ndarray]) -> Path:
    rows = []
    for item, track in tracks.items():
        path = folder / f"{item}.star"
        write_motion(
            path, track, movie=Path(f"{item}.tif"), frame_shape=(10, 12), pixel_size_A=2.0, voltage_kV=300.0, binning=1,
            gain=None, dose_per_frame_e_A2=1.0, pre_exposure_e_A2=0.0,
        )  # fmt: skip
        rows.append(
            {
                "rlnMicrographName": f"{item}.mrc",
                "rlnMicrographMetadata": str(path),
                "rlnOpticsGroup": 1,
                "crpItem": item,
            }
        )
    columns = ["rlnMicrographName", "rlnMicrographMetadata", "rlnOpticsGroup", "crpItem"]
    optics = make_optics(voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.1, micrograph_pixel_size_A=2.0)
    write_table(folder / "in.star", StarTable("micrographs", optics, pd.DataFrame(rows, columns=columns)))
    return folder / "in.star"


def run(folder: Path, table: Path, params: ScreenMotion | None = None) -> tuple[StarTable, list]:
    outputs = {"micrographs": folder / "out.star", "rejected": folder / "rejected.tsv"}
    context = Context(step="screen_motion", work_dir=folder, log=logging.getLogger("test"))
    screen_motion.main({"micrographs": table}, outputs, params or legacy(), context)
    return read_table(outputs["micrographs"], "micrographs"), read_rejections(outputs["rejected"])


def test_the_step_accounts_for_every_micrograph(tmp_path: Path) -> None:
    line = np.stack([np.arange(5.0), np.zeros(5)], axis=1)
    table = make_table(tmp_path, {"good": line, "still": 0 * line, "bad": 3 * line, "lost": line})
    (tmp_path / "lost.star").unlink()
    accepted, rejections = run(tmp_path, table)
    assert list(accepted.rows["crpItem"]) == ["good", "still"]
    assert list(accepted.rows["crpMotionFlag"]) == ["none", "no_motion"]
    assert accepted.rows["crpMotionPath"][0] == pytest.approx(8.0)
    assert {r.item: r.reason.split(":")[0] for r in rejections} == {
        "bad": "largest step between frames 6.0 Å exceeds 5 Å and motion over the movie 24.0 Å exceeds 15 Å",
        "lost": "no_alignment",
    }


def test_screening_what_was_accepted_changes_nothing(tmp_path: Path) -> None:
    line = np.stack([np.arange(6.0), np.zeros(6)], axis=1)
    spiked = line + np.array([0, 0, 2, 0, 0, 0])[:, None]  # 4 Å aside, 6 Å in one step
    first, rejections = run(tmp_path, make_table(tmp_path, {"good": 0.5 * line, "bad": 3 * line, "odd": 0.6 * spiked}))
    assert [r.item for r in rejections] == ["bad"]
    assert list(first.rows["crpMotionFlag"]) == ["none", "spike"]
    second, rejections = run(tmp_path, tmp_path / "out.star")
    assert rejections == []
    pd.testing.assert_frame_equal(first.rows, second.rows)


def test_two_micrographs_of_one_name_and_a_table_without_trajectories_are_refused(tmp_path: Path) -> None:
    line = np.stack([np.arange(5.0), np.zeros(5)], axis=1)
    table = read_table(make_table(tmp_path, {"a": line}), "micrographs")
    write_table(tmp_path / "two.star", table.with_rows(pd.concat([table.rows, table.rows], ignore_index=True)))
    with pytest.raises(InputError, match=r"two\.star: two micrographs are called a"):
        run(tmp_path, tmp_path / "two.star")
    write_table(tmp_path / "none.star", table.with_rows(table.rows.drop(columns="rlnMicrographMetadata")))
    with pytest.raises(InputError, match=r"none\.star: the column rlnMicrographMetadata is missing. Make"):
        run(tmp_path, tmp_path / "none.star")


def test_an_empty_batch_is_legal(tmp_path: Path) -> None:
    accepted, rejections = run(tmp_path, make_table(tmp_path, {}))
    assert len(accepted) == 0
    assert rejections == []
