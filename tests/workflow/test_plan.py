"""The plan hands plain builtins to Snakemake, and its code digests see exactly what a step is made of."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cryopipe.errors import ConfigError, InputError
from cryopipe.workflow import code
from cryopipe.workflow.code import code_digest
from cryopipe.workflow.plan import CODE_VARIABLE, Plan

ROOT = Path(__file__).parents[2]
PLAIN = (str, int, float, bool, type(None))


def builtins_only(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(k) is str and builtins_only(v) for k, v in value.items())
    if isinstance(value, list):
        return all(builtins_only(v) for v in value)
    return type(value) in PLAIN


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan.of({}, root=ROOT, default="config/config.yaml", results=tmp_path)


def test_what_reaches_snakemakes_change_detection_is_plain(plan: Plan) -> None:
    for step in plan.steps:
        assert builtins_only(plan.params(step)), step
        assert builtins_only(plan.run(step)), step


def test_batches_hold_every_movie_once_and_reach_the_import_step_alone(plan: Plan) -> None:
    files = [path for batch in plan.batches for path in plan.params("import_movies", batch=batch)["paths"]]
    assert files == plan.config.simulation.simulate_movies.movie_paths("simulation/simulate_movies")  # type: ignore[union-attr]
    assert "paths" not in plan.params("align_movies")


def test_a_manifest_is_extended_by_the_planning_process_alone_when_its_jobs_start(tmp_path: Path) -> None:
    def plan(movies: int, *, extend: bool) -> Plan:
        tree = {"simulation": {"simulate_movies": {"movies": movies}}, "run": {"batch_size": 4}}
        return Plan.of(tree, root=ROOT, default="", results=tmp_path, extend=extend)

    first = plan(8, extend=True)
    assert len(first.batches) == 2
    plan(8, extend=False).keep_manifest()
    assert not (tmp_path / "manifest.txt").exists()
    first.keep_manifest()
    assert len(plan(12, extend=True).batches) == 3
    assert len(plan(12, extend=False).batches) == 2


def test_a_file_is_an_input_of_its_batch_with_size_and_time_and_one_that_is_gone_is_none(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.mrc").write_bytes(b"12345")
    tree = {"dataset": FACTS | {"micrographs": "*.mrc"}, "run": {"batch_size": 2}}
    plan = Plan.of(tree, root=tmp_path, default="", results=tmp_path / "run")
    files = [str(tmp_path / f"{name}.mrc") for name in "abc"]
    first, second = (SimpleNamespace(batch=f"batch_000{i}") for i in (1, 2))
    assert (plan.input_files(first), plan.input_files(second)) == (files[:2], files[2:])
    os.utime(files[0], ns=(7, 7))
    assert plan.file_states(first)[files[0]] == [5, 7]
    assert builtins_only(plan.file_states(first))
    Path(files[1]).unlink()
    assert plan.input_files(first) == files[:1]
    assert plan.file_states(first)[files[1]] == [-1, 0]
    assert plan.params("import_micrographs", batch="batch_0001")["paths"] == files[:2]


FACTS = {"pixel_size_A": 1.0, "voltage_kV": 300, "cs_mm": 2.7, "particle_diameter_A": 100, "symmetry": "C1"}


def archived(tmp_path: Path, listing: str, movies: str = "empiar:10248/data/*.tif", **options: Any) -> Plan:
    (tmp_path / "list.txt").write_text(listing)
    tree = {
        "dataset": FACTS | {"movies": movies},
        "movies": {"fetch_movies": {"listing": str(tmp_path / "list.txt")}},
        "run": {"batch_size": 2},
    }
    return Plan.of(tree, root=ROOT, default="", results=tmp_path / "run", **options)


def test_archived_movies_are_batched_by_their_names_with_what_the_list_knows_of_them(tmp_path: Path) -> None:
    md5 = "0123456789abcdef" * 2
    plan = archived(tmp_path, f"{md5}  data/b.tif\n77  data/a.tif\ndata/c.tif\nnotes.txt\n")
    a, b, c = (f"empiar:10248/data/{name}.tif" for name in "abc")
    assert plan.batches == {"batch_0001": [a, b], "batch_0002": [c]}
    first = plan.params("fetch_movies", batch="batch_0001")
    assert (first["paths"], first["sizes"], first["checksums"]) == ([a, b], {a: 77}, {b: md5})
    assert builtins_only(first)
    assert plan.params("fetch_movies", batch="batch_0002")["checksums"] == {}
    assert plan.params("import_movies", batch="batch_0001")["paths"] == []
    plan.keep_manifest()
    # one that the archive gets later goes to the end and changes no other batch
    later = archived(tmp_path, "77  data/a.tif\ndata/0.tif\ndata/c.tif\n" + f"{md5}  data/b.tif\n")
    assert later.params("fetch_movies", batch="batch_0001") == first
    assert later.batches["batch_0002"] == [c, "empiar:10248/data/0.tif"]


@pytest.mark.parametrize(
    ("movies", "message"),
    [
        ("empiar:10248", r"such as empiar:10248/data/\*\.tif"),
        ("empiar:10248/other/*.tif", r"dataset\.movies: no file of .*list\.txt matches other/\*\.tif"),
    ],
)
def test_an_archive_that_has_no_such_movies_is_named_before_any_job(tmp_path: Path, movies: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _ = archived(tmp_path, "data/a.tif\n", movies).batches


def test_each_movie_belongs_to_one_group_and_each_group_has_movies(tmp_path: Path) -> None:
    for name in ("day1/a.tif", "day1/b.tif", "day2/c.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def plan(*groups: dict[str, Any]) -> Plan:
        tree = {"dataset": FACTS | {"movies": "*/*.tif", "optics_groups": list(groups)}}
        return Plan.of(tree, root=tmp_path, default="", results=tmp_path / "run")

    one, two = {"name": "one", "files": "day1/*"}, {"name": "two", "files": "day2/*", "cs_mm": 2.62}
    good = plan(one, two)
    assert len(good.batches["batch_0001"]) == 3
    assert builtins_only(good.params("import_movies", batch="batch_0001"))
    assert [g["cs_mm"] for g in good.params("import_movies")["optics_groups"]] == [None, 2.62]
    with pytest.raises(ConfigError, match=r"day2/c\.tif must belong to exactly one group, but none of one matches it"):
        _ = plan(one).batches
    with pytest.raises(ConfigError, match=r"but one and all of one, all matches it"):
        _ = plan(one, {"name": "all", "files": "*.tif"}).batches
    with pytest.raises(ConfigError, match="no file belongs to three"):
        _ = plan(one, two, {"name": "three", "files": "day3/*"}).batches


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"pixel_size_A": 1.01}, r"optics group g has 1\.01 Å/px, but the dataset has 1 Å/px.* make one run for each"),
        (
            {"dose_per_frame_e_A2": 2.0},
            r"dose_per_frame_e_A2 = 2, but the dataset has none, .* Give that of the dataset, too",
        ),
        ({"voltage": 200}, r"dataset\.optics_groups\.0\.voltage: this key is not known; did you mean 'voltage_kV'"),
    ],
)
def test_groups_that_one_run_cannot_process_are_refused_with_the_remedy(
    tmp_path: Path, group: dict[str, Any], message: str
) -> None:
    tree = {"dataset": FACTS | {"movies": "Makefile", "optics_groups": [{"name": "g", "files": "*"} | group]}}
    with pytest.raises(ConfigError, match=message):
        Plan.of(tree, root=ROOT, default="", results=tmp_path)


def test_a_gain_that_is_not_there_is_named_before_any_job() -> None:
    tree = {
        "dataset": {
            "movies": "Makefile", "gain": "nowhere.mrc", "pixel_size_A": 1.0, "voltage_kV": 300, "cs_mm": 2.7,
            "particle_diameter_A": 100, "symmetry": "C1",
        }
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"dataset\.gain: the file .*nowhere\.mrc does not exist"):
        Plan.of(tree, root=ROOT, default="")


def test_a_gain_in_an_archive_is_refused_with_its_address() -> None:
    tree = {"dataset": FACTS | {"movies": "Makefile", "gain": "empiar:10248/data/gain.mrc"}}
    with pytest.raises(
        ConfigError, match=r"Download https://ftp\.ebi\.ac\.uk/.*/10248/data/gain\.mrc and give the path"
    ):
        Plan.of(tree, root=ROOT, default="")


def test_a_digest_changes_with_a_module_the_step_imports_and_with_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {step: code_digest(f"cryopipe.{step}") for step in ("picking.pick_log", "refinement.refine_homogeneous")}
    original = code._source

    def edited(module: str) -> bytes:
        return original(module) + (b"\n# edited" if module == "cryopipe.picking.blobs" else b"")

    monkeypatch.setattr(code, "_source", edited)
    after = {step: code_digest(f"cryopipe.{step}") for step in before}
    assert after["picking.pick_log"] != before["picking.pick_log"]
    assert after["refinement.refine_homogeneous"] == before["refinement.refine_homogeneous"]


def test_a_digest_ignores_what_a_step_costs_and_nothing_else_of_its_declaration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = code_digest("cryopipe.picking.pick_log")
    original = code._source

    def with_(old: bytes, new: bytes) -> str:
        source = original("cryopipe.config.picking")
        assert source.count(old) >= 1
        monkeypatch.setattr(
            code, "_source", lambda m: source.replace(old, new, 1) if m == "cryopipe.config.picking" else original(m)
        )
        return code_digest("cryopipe.picking.pick_log")

    assert with_(b'memory_MB="', b'memory_MB="1 + ') == before
    assert with_(b"    cpu_seconds=", b"    # comment \xc3\x85\n    cpu_seconds=") == before
    assert with_(b"threads=4", b"threads=5") != before
    assert with_(b"default=20.0", b"default=21.0") != before


def test_children_inherit_the_digests_of_the_process_that_planned(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CODE_VARIABLE, '{"pick_log": "as-planned"}')
    assert plan.code("pick_log") == "as-planned"
    assert plan.code("align_movies") == code_digest("cryopipe.movies.align_movies")


def test_only_steps_with_a_gpu_path_ask_for_a_gpu(tmp_path: Path) -> None:
    def plan_for(device: str) -> Plan:
        tree = {"run": {"device": device}, "simulation": {}}
        return Plan.of(tree, root=ROOT, default="", results=tmp_path / device)

    assert plan_for("gpu").gpus("classify_2d") == 1
    assert plan_for("gpu").gpus("pick_log") == 0
    assert plan_for("cpu").gpus("classify_2d") == 0
