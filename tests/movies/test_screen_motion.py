"""Step screen_motion on hand-made trajectories (acceptance tests of the method's card)."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopipe.config.movies import ScreenMotion
from cryopipe.context import Context
from cryopipe.errors import CryopipeError
from cryopipe.io.star import StarTable, make_optics, read_rejections, read_table, write_table
from cryopipe.movies import screen_motion
from cryopipe.movies.motion_star import Motion, write_motion
from cryopipe.movies.screen_motion import measure_motion, rejection_reason, screen


def motion(
    x: list[float], y: list[float] | None = None, *, pixel: float = 1.0, frames: list[int] | None = None
) -> Motion:
    track = np.array([x, y if y is not None else [0.0] * len(x)], dtype=float).T
    return Motion(track, pixel, np.array(frames or range(1, len(x) + 1)))


def rejected(m: Motion, **params: object) -> bool:
    return rejection_reason(measure_motion(m), ScreenMotion(**params)) is not None


def test_a_step_above_five_angstrom_is_rejected_and_the_reason_names_both_numbers() -> None:
    assert not rejected(motion([0, 4.9]))
    assert not rejected(motion([0, 5.0]))  # a value equal to its limit passes
    assert rejected(motion([0, 5.1]))
    reason = rejection_reason(measure_motion(motion([0, 5.1])), ScreenMotion())
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
    accepted, rejections = screen(motions, ScreenMotion())
    assert [r.item for r in rejections] == ["m17"]
    assert len(accepted) == 29
    assert screen({k: motions[k] for k in accepted}, ScreenMotion())[1] == []


def test_rejecting_everything_stops_with_limits_that_would_not() -> None:
    motions: dict[str, Motion | str] = {f"m{i}": motion([0, 30.0 + i]) for i in range(10)}
    with pytest.raises(CryopipeError, match=r"all 10 movies.*max_frame_shift_A 38.1"):
        screen(motions, ScreenMotion())


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


def run(folder: Path, table: Path) -> tuple[StarTable, list]:
    outputs = {"micrographs": folder / "out.star", "rejected": folder / "rejected.tsv"}
    context = Context(step="screen_motion", work_dir=folder, log=logging.getLogger("test"))
    screen_motion.main({"micrographs": table}, outputs, ScreenMotion(), context)
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


def test_an_empty_batch_is_legal(tmp_path: Path) -> None:
    accepted, rejections = run(tmp_path, make_table(tmp_path, {}))
    assert len(accepted) == 0
    assert rejections == []
