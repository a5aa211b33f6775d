"""Costs are summed by step and run, and predictions appear where there are some."""

from __future__ import annotations

from pathlib import Path

from cryopipe.report.sections.costs import build, costs, predicted, table
from tests.report.fabricated import files_of


def write_benchmark(path: Path, seconds: float, memory: str = "100.5") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\tcpu_time\n{seconds}\t0:00:10\t{memory}\t5.0\n")


def test_costs_sum_the_jobs_of_a_step(tmp_path: Path) -> None:
    for i, memory in enumerate(("100.5", "-"), 1):
        write_benchmark(tmp_path / f"movies/align_movies/batch_{i:04d}.tsv", 10.0 * i, memory)
    assert costs(tmp_path) == [
        {"step": "align_movies", "jobs": 2, "seconds": 30.0, "cpu_seconds": 10.0, "max_rss_MB": 100.5}
    ]


def test_the_runs_of_a_step_have_rows_of_their_own(tmp_path: Path) -> None:
    write_benchmark(tmp_path / "ctf/consensus_ctf/defocus/batch_0001.tsv", 2.0)
    write_benchmark(tmp_path / "ctf/consensus_ctf/envelope/batch_0001.tsv", 3.0)
    write_benchmark(tmp_path / "refinement/refine_homogeneous.tsv", 4.0)
    steps = [row["step"] for row in costs(tmp_path)]
    assert steps == ["refine_homogeneous", "consensus_ctf/envelope", "consensus_ctf/defocus"]


def test_disk_is_what_lies_in_the_folder_of_the_step(tmp_path: Path) -> None:
    write_benchmark(tmp_path / "benchmarks/picking/pick_log/batch_0001.tsv", 1.0)
    folder = tmp_path / "picking/pick_log/work"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(b"x" * 1_500_000)
    (row,) = build(files_of(tmp_path, {})).numbers["steps"]
    assert row["disk_MB"] == 1.5


def test_a_prediction_is_for_all_jobs_and_has_a_column_only_where_there_is_one() -> None:
    used = {
        "step": "align_movies",
        "jobs": 3,
        "seconds": 200.0,
        "cpu_seconds": 9.0,
        "max_rss_MB": 800.0,
        "disk_MB": 4.0,
    }
    known = predicted({"minutes": 1.0, "memory_MB": 900.0, "gpu_memory_MB": 0.0}, used)
    assert known == {"predicted_seconds": 180.0, "predicted_memory_MB": 900.0}
    shown = table([used | known, used | {"step": "pick_log"}])
    assert shown["headings"] == [
        "seconds",
        "seconds, predicted",
        "CPU seconds",
        "largest memory (MB)",
        "largest memory (MB), predicted",
        "disk (MB)",
    ]
    assert shown["rows"][0] == ("align_movies", 3, ["200.0", "180.0", "9.0", "800", "900", "4.0"])
    assert shown["rows"][1][2] == ["200.0", "–", "9.0", "800", "–", "4.0"]
    assert "predicted" not in "".join(table([used])["headings"])
