"""Hand-overs by name: each port is answered by the step that makes it in this run, and what cannot be is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cryopipe.config.ctf import ConsensusCtf
from cryopipe.config.derive import resolve
from cryopipe.config.load import parse_config
from cryopipe.errors import ConfigError
from cryopipe.workflow.plan import Plan
from cryopipe.workflow.ports import Ports

ROOT = Path(__file__).parents[2]
FACTS = {"pixel_size_A": 1.0, "voltage_kV": 300, "cs_mm": 2.7, "particle_diameter_A": 100, "symmetry": "C1"}


class Wildcards(dict[str, str]):
    """Snakemake's wildcards, as far as a port sees them."""

    __getattr__ = dict.__getitem__


def ports(tmp_path: Path, **sections: Any) -> Ports:
    return Plan.of({"simulation": {}} | sections, root=ROOT, default="", results=tmp_path).ports


def test_micrographs_are_those_that_this_run_makes_or_imports(tmp_path: Path) -> None:
    assert ports(tmp_path)["micrographs"] == "movies/screen_motion/{batch}_micrographs.star"
    imported = Plan.of(
        {"dataset": FACTS | {"micrographs": "Makefile"}}, root=ROOT, default="", results=tmp_path / "other"
    ).ports
    assert imported["micrographs"] == "movies/import_micrographs/{batch}_micrographs.star"
    assert imported.all("micrographs") == ["movies/import_micrographs/batch_0001_micrographs.star"]
    assert imported.get("truth_map") == imported.all("aligned_micrographs") == []


def test_a_port_that_no_step_declares_is_a_mistake_of_the_rule(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no step makes the port 'mikrographs'"):
        _ = ports(tmp_path)["mikrographs"]


@pytest.mark.parametrize(
    ("runs", "previous", "estimators"),
    [
        ([["ctffind", "gctf"], ["xmipp"]], {}, ["ctffind", "gctf", "xmipp"]),
        ([["gctf"]], {}, ["gctf"]),
        ([["gctf"], ["xmipp"]], {}, ["gctf", "xmipp"]),
        ([["gctf"], ["xmipp"]], {"previous_from": "ctffind"}, ["ctffind", "gctf", "xmipp"]),
        ([["gctf"], ["xmipp"]], {"previous_from": "gctf"}, ["gctf", "xmipp"]),
        ([["gctf"], ["xmipp"]], {"previous_from": "ctffind", "use_previous": False}, ["gctf", "xmipp"]),
        ([["xmipp", "ctffind"]], {}, ["ctffind", "xmipp"]),
    ],
)
def test_those_estimators_run_that_a_consensus_compares_or_that_another_starts_from(
    tmp_path: Path, runs: list[list[str]], previous: dict[str, Any], estimators: list[str]
) -> None:
    consensus = [{"estimators": names} for names in runs]
    found = ports(tmp_path, ctf={"estimate_ctf_xmipp": previous, "consensus_ctf": consensus})
    assert found.branches("estimators") == [f"estimate_ctf_{name}" for name in estimators]
    passes = ["consensus_ctf/defocus", "consensus_ctf/envelope"][: len(runs)]
    assert [name for name in found.names if name.startswith("consensus_ctf")] == passes
    assert found["micrographs_with_ctf"] == f"ctf/{passes[-1]}/{{batch}}_micrographs.star"
    assert found.branches("consensus_ctf", "defocus") == [f"estimate_ctf_{name}" for name in runs[0]]
    if len(runs) > 1:
        joined = [*(f"estimate_ctf_{name}" for name in runs[1]), "consensus_ctf/defocus"]
        assert found.branches("consensus_ctf", "envelope") == joined


def test_a_run_reads_what_it_starts_from_and_the_first_what_enters_the_stage(tmp_path: Path) -> None:
    found = ports(tmp_path)
    start = found.start("consensus_ctf", "micrographs_with_ctf", otherwise="micrographs")
    assert start(Wildcards(run="defocus", batch="batch_0002")) == "movies/screen_motion/batch_0002_micrographs.star"
    assert (
        start(Wildcards(run="envelope", batch="batch_0002")) == "ctf/consensus_ctf/defocus/batch_0002_micrographs.star"
    )
    lists = found.joined("consensus_ctf", "rejected.tsv")(Wildcards(run="envelope", batch="batch_0001"))
    assert lists == [
        "ctf/estimate_ctf_xmipp/batch_0001_rejected.tsv",
        "ctf/consensus_ctf/defocus/batch_0001_rejected.tsv",
    ]


def test_six_rounds_each_start_from_the_one_before(tmp_path: Path) -> None:
    rounds = [
        {"run": f"round_{i}", "start_from": "previous" if i > 1 else None, "min_agreeing": 1} for i in range(1, 7)
    ]
    # by their own lists of estimators six rounds would not be allowed: here they only start from one another
    params = {f"consensus_ctf/{r['run']}": ConsensusCtf.model_validate(r) for r in rounds}
    for before, after in zip(list(params)[:-1], list(params)[1:], strict=True):
        params[after] = params[after].model_copy(update={"start_from": before.split("/")[1]})
    known = resolve(parse_config({"simulation": {}}))
    all_params = {k: v for k, v in known.items() if not k.startswith("consensus_ctf")} | params
    found = Ports(all_params, {}, dict.fromkeys(CONDITIONS, True), lambda: ["batch_0001"])
    start = found.start("consensus_ctf", "micrographs_with_ctf", otherwise="micrographs")
    paths = [start(Wildcards(run=f"round_{i}", batch="batch_0001")) for i in range(2, 7)]
    assert paths == [f"ctf/consensus_ctf/round_{i}/batch_0001_micrographs.star" for i in range(1, 6)]
    assert found["micrographs_with_ctf"] == "ctf/consensus_ctf/round_6/{batch}_micrographs.star"


CONDITIONS = ("always", "simulation", "movies", "archive", "micrographs", "truth", "model")


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (
            [
                {"run": "a", "start_from": "b", "estimators": ["gctf"]},
                {"run": "b", "start_from": "a", "estimators": ["xmipp"]},
            ],
            r"wait for one another: consensus_ctf/a <- consensus_ctf/b <- consensus_ctf/a",
        ),
        (
            [{"run": "a", "start_from": "nowhere"}],
            r"consensus_ctf/a asks for the result of nowhere, which is not a step",
        ),
    ],
)
def test_circles_and_unknown_starts_are_refused_before_any_job(
    tmp_path: Path, runs: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ports(tmp_path, ctf={"consensus_ctf": runs})


def test_an_estimator_that_starts_from_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="estimate_ctf_xmipp <- estimate_ctf_xmipp"):
        ports(tmp_path, ctf={"estimate_ctf_xmipp": {"previous_from": "xmipp"}})


def test_a_start_that_makes_nothing_of_the_kind_is_refused(tmp_path: Path) -> None:
    found = ports(tmp_path, ctf={"consensus_ctf": [{"run": "a", "start_from": "align_movies"}]})
    start = found.start("consensus_ctf", "micrographs_with_ctf", otherwise="micrographs")
    with pytest.raises(
        ConfigError, match="run a: start_from is align_movies, which does not make micrographs_with_ctf"
    ):
        start(Wildcards(run="a", batch="batch_0001"))


def test_a_fan_in_without_branches_is_refused(tmp_path: Path) -> None:
    known = resolve(parse_config({"simulation": {}}))
    found = Ports(known, {"pickers": ([], "")}, dict.fromkeys(CONDITIONS, True), list)
    with pytest.raises(ConfigError, match="pickers: none of its branches runs"):
        found.branches("pickers")


def test_the_coordinates_of_one_picker_go_on_and_a_branch_that_nobody_names_does_not_run(tmp_path: Path) -> None:
    known = resolve(parse_config({"simulation": {}}))
    holds = dict.fromkeys(CONDITIONS, True)
    found = Ports(known, {"pickers": (["pick_log"], "pick_log")}, holds, list)
    assert found["coordinates"] == "picking/pick_log/{batch}_coordinates.star"
    without = Ports(known, {}, holds, list)
    assert "pick_log" not in without.names
    assert without.maker("coordinates") is None
