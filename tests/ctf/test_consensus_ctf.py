"""Step consensus_ctf and its parts (acceptance tests of the method's card)."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopipe.config.ctf import ConsensusCtf
from cryopipe.context import Context
from cryopipe.ctf import consensus_ctf
from cryopipe.ctf.agreement import agreement, angle_difference_deg, mean_defocus
from cryopipe.ctf.consensus_ctf import consensus
from cryopipe.ctf.model import Microscope, from_uv
from cryopipe.errors import InputError
from cryopipe.io.star import StarTable, make_optics, read_rejections, read_table, write_table

SCOPE = Microscope(300.0, 2.7, 0.1)


def table(rows: list[tuple[str, float, float, float]], *, resolution: float = 4.0, pixel: float = 0.495) -> StarTable:
    frame = pd.DataFrame(
        {
            "rlnMicrographName": [f"{item}.mrc" for item, *_ in rows],
            "rlnOpticsGroup": np.ones(len(rows), dtype=int),
            "crpItem": [item for item, *_ in rows],
            "rlnDefocusU": np.array([r[1] for r in rows], dtype=float),
            "rlnDefocusV": np.array([r[2] for r in rows], dtype=float),
            "rlnDefocusAngle": np.array([r[3] for r in rows], dtype=float),
            "rlnCtfMaxResolution": np.full(len(rows), resolution),
        }
    )
    optics = make_optics(voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.1, micrograph_pixel_size_A=pixel)
    return StarTable("micrographs", optics, frame)


def test_the_legacy_value_is_that_of_xmipps_own_test() -> None:
    scope = Microscope(300.0, 2.0, 0.1)
    found = agreement((from_uv(10000, 5400, 45), scope), (from_uv(5000, 5000, 45), scope), 2.0)
    assert found.legacy_linear_A == pytest.approx(13.92166, abs=1e-4)
    assert found.area_A == pytest.approx(7.46, abs=0.01)


@pytest.mark.parametrize(
    ("difference", "crossing", "legacy"), [(100, 1.98, 3.98), (500, 4.44, 19.9), (1000, 6.27, 39.8)]
)
def test_two_defoci_agree_up_to_the_resolution_where_their_phases_part(
    difference: float, crossing: float, legacy: float
) -> None:
    pair = (from_uv(10000 + difference, 10000 + difference, 0), SCOPE), (from_uv(10000, 10000, 0), SCOPE)
    for first, second in (pair, pair[::-1]):
        found = agreement(first, second, 0.495)
        assert found.crossing_A == pytest.approx(crossing, abs=0.01)  # √(2 λ δ)
        assert found.legacy_linear_A == pytest.approx(legacy, rel=0.01)


def test_equal_ctfs_agree_to_nyquist_and_astigmatic_ones_are_judged_at_their_worst_azimuth() -> None:
    round_one = (from_uv(12000, 12000, 0), SCOPE)
    assert agreement(round_one, round_one, 0.5).crossing_A == pytest.approx(1.0)
    assert agreement(round_one, (from_uv(12500, 11500, 20), SCOPE), 0.495).crossing_A == pytest.approx(4.44, abs=0.01)


def test_phase_shifts_count_where_the_full_phase_is_compared() -> None:
    found = agreement((from_uv(12000, 12000, 0), SCOPE), (from_uv(12000, 12000, 0, 100.0), SCOPE), 1.0)
    assert found.crossing_A > 1000  # apart from zero frequency on


def test_defoci_are_averaged_as_tensors() -> None:
    mean = mean_defocus([from_uv(10000, 9000, 0), from_uv(10000, 9000, 60)])
    assert (mean.u_A, mean.v_A, mean.angle_deg) == pytest.approx((9750, 9250, 30))
    crossed = mean_defocus([from_uv(10000, 9000, 0), from_uv(10000, 9000, 90)])
    assert (crossed.u_A, crossed.v_A) == pytest.approx((9500, 9500))
    shifted = mean_defocus([from_uv(1e4, 1e4, 0, 175.0), from_uv(1e4, 1e4, 0, 5.0)])
    assert np.degrees(shifted.phase_shift_rad) % 180 == pytest.approx(0.0, abs=1e-6)


def test_directions_of_axes_differ_by_at_most_ninety_degrees() -> None:
    assert angle_difference_deg(89, -89) == 2
    assert angle_difference_deg(0, 90) == 90


@pytest.mark.parametrize(
    ("row", "resolution", "reason"),
    [
        (("m", 4500.0, 3900.0, 0.0), 4.0, "defocus 3900 Å is below 4000 Å"),
        (("m", 41000.0, 40500.0, 0.0), 4.0, "defocus 41000 Å is above 40000 Å"),
        (("m", 16500.0, 15000.0, 0.0), 4.0, "astigmatism 1500 Å exceeds 1000 Å"),
        (("m", 15500.0, 15000.0, 0.0), 9.5, "CTF fitted to 9.5 Å only, 8 Å is asked for"),
        (("m", 15500.0, 15000.0, 0.0), 8.0, None),
    ],
)
def test_a_single_branch_is_judged_by_limits_that_the_reason_names(
    row: tuple, resolution: float, reason: str | None
) -> None:
    accepted, rejections = consensus([table([row], resolution=resolution)], ConsensusCtf())
    assert [r.reason for r in rejections] == ([reason] if reason else [])
    assert len(accepted) == (reason is None)


def test_a_swapped_pair_of_defoci_is_judged_like_the_ordered_one() -> None:
    accepted, _ = consensus([table([("m", 15000.0, 15500.0, 10.0)])], ConsensusCtf())
    assert len(accepted) == 1


def planted() -> tuple[StarTable, StarTable]:
    rng = np.random.default_rng(0)
    first, second = [], []
    for i in range(30):
        u = rng.uniform(8000, 20000)
        first.append((f"m{i}", u, u - 100, 20.0))
        d = 3000.0 if i == 12 else rng.normal(0, 80)
        second.append((f"m{i}", u + d, u + d - 100, 20.0))
    return table(first), table(second)


@pytest.mark.parametrize("criterion", ["crossing", "legacy_linear"])
def test_exactly_the_planted_disagreement_is_rejected_in_any_order_of_rows(criterion: str) -> None:
    first, second = planted()
    params = ConsensusCtf(agreement=criterion)
    accepted, rejections = consensus([first, second], params)
    assert [r.item for r in rejections] == ["m12"]
    assert "their defoci differ by 3000 Å" in rejections[0].reason
    mixed = second.with_rows(second.rows.sample(frac=1, random_state=1))
    again, _ = consensus([first, mixed], params)
    pd.testing.assert_frame_equal(again.rows, accepted.rows)
    assert accepted.rows["crpCtfDefocusSpread"].max() < 400


def test_every_micrograph_of_any_branch_is_accounted_for() -> None:
    first = table([("a", 1e4, 9900.0, 0.0), ("b", 1e4, 9900.0, 0.0)])
    second = table([("b", 1e4, 9900.0, 0.0), ("c", 1e4, 9900.0, 0.0)])
    accepted, rejections = consensus([first, second], ConsensusCtf())
    assert list(accepted.rows["crpItem"]) == ["b"]
    assert {r.item: r.reason.split(":")[0] for r in rejections} == {"a": "no_secondary", "c": "no_primary"}


def test_averages_replace_the_primary_only_where_asked() -> None:
    first, second = table([("a", 1e4, 9000.0, 0.0)]), table([("a", 1e4, 9000.0, 60.0)])
    loose = {"max_agreement_A": 20.0}
    kept, _ = consensus([first, second], ConsensusCtf(**loose))
    assert kept.rows["rlnDefocusU"][0] == 10000.0
    averaged, _ = consensus([first, second], ConsensusCtf(average_defocus=True, **loose))
    assert averaged.rows["rlnDefocusU"][0] == pytest.approx(9750.0)
    assert averaged.rows["rlnDefocusAngle"][0] == pytest.approx(30.0)


def test_a_table_without_ctfs_and_a_repeated_name_are_refused() -> None:
    bare = table([("a", 1e4, 9e3, 0.0)])
    with pytest.raises(InputError, match="no rlnDefocusU"):
        consensus([bare.with_rows(bare.rows.drop(columns="rlnDefocusU"))], ConsensusCtf())
    with pytest.raises(InputError, match="a stands twice"):
        consensus([table([("a", 1e4, 9e3, 0.0), ("a", 1e4, 9e3, 0.0)])], ConsensusCtf())


@pytest.mark.parametrize("branches", [1, 2])
def test_the_step_reads_and_writes_tables_also_empty_ones(tmp_path: Path, branches: int) -> None:
    paths = []
    for rows in ([("a", 1e4, 9900.0, 0.0), ("b", 1e4, 8000.0, 0.0)], []):
        paths = []
        for i in range(branches):
            paths.append(tmp_path / f"{i}.star")
            write_table(paths[-1], table(rows))
        outputs = {"micrographs": tmp_path / "out.star", "rejected": tmp_path / "rejected.tsv"}
        context = Context(step="consensus_ctf", work_dir=tmp_path, log=logging.getLogger("test"))
        consensus_ctf.main({"branches": paths}, outputs, ConsensusCtf(), context)
        accepted = read_table(outputs["micrographs"], "micrographs")
        assert list(accepted.rows["crpItem"]) == [r[0] for r in rows[:1]]
        assert [r.item for r in read_rejections(outputs["rejected"])] == [r[0] for r in rows[1:]]
        assert "crpCtfBranches" in accepted.rows


@pytest.mark.parametrize("estimators", [[], ["gctf", "gctf"]])
def test_a_list_without_or_with_repeated_estimators_is_refused(estimators: list[str]) -> None:
    with pytest.raises(ValueError, match="at least one estimator, each once"):
        ConsensusCtf(estimators=estimators)


def test_combined_values_and_their_uncertainty_do_not_depend_on_the_order_of_three_branches() -> None:
    branches = [table([("a", 10000.0 + d, 9900.0 + d, 0.0)]) for d in (0.0, 30.0, 90.0)]
    forward, _ = consensus(branches, ConsensusCtf())
    backward, _ = consensus(branches[::-1], ConsensusCtf())
    columns = [name for name in forward.rows if str(name).startswith("crpCtf")]
    pd.testing.assert_frame_equal(forward.rows[columns], backward.rows[columns])
    assert forward.rows["crpCtfDefocusMean"][0] == pytest.approx(9990.0)
    assert forward.rows["crpCtfDefocusSd"][0] == pytest.approx(np.std([0.0, 30.0, 90.0], ddof=1))
