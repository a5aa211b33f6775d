"""What a step used stands beside what was predicted, where something was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryopipe.config.declaration.costs import COSTS, Prediction
from cryopipe.report.sections.costs import build, cost_row, table
from tests.report.fabricated import files_of


def write_provenance(folder: Path, output: str, step: str, seconds: float) -> None:
    path = folder / f"{output}.provenance.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    took = {"seconds": seconds, "cpu_seconds": 5.0, "compile_seconds": 1.0, "max_rss_MB": 100.5}
    path.write_text(json.dumps({"step": step, **took}))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return list(build(files_of(folder, {})).numbers["steps"])


def test_steps_come_by_their_time_and_runs_have_rows_of_their_own(tmp_path: Path) -> None:
    write_provenance(tmp_path, "ctf/consensus_ctf/defocus/batch_0001_micrographs.star", "consensus_ctf/defocus", 2.0)
    write_provenance(tmp_path, "ctf/consensus_ctf/envelope/batch_0001_micrographs.star", "consensus_ctf/envelope", 3.0)
    write_provenance(tmp_path, "refinement/refine_homogeneous/particles.star", "refine_homogeneous", 4.0)
    steps = [row["step"] for row in rows_of(tmp_path)]
    assert steps == ["refine_homogeneous", "consensus_ctf/envelope", "consensus_ctf/defocus"]


def test_the_prediction_of_the_run_is_read_from_its_folder(tmp_path: Path) -> None:
    write_provenance(tmp_path, "picking/pick_log/batch_0001_coordinates.star", "pick_log", 2.0)
    assert not any("predicted" in key for key in rows_of(tmp_path)[0])
    (tmp_path / COSTS).write_text(json.dumps({"pick_log": {"jobs": 1, "memory_MB": 90.0, "gpu_memory_MB": 0.0}}))
    row = rows_of(tmp_path)[0]
    assert row["predicted_memory_MB"] == 90.0
    assert row["memory_MB"] == 100.5
    assert "predicted_jobs" not in row


def test_a_prediction_has_a_column_only_where_there_is_one() -> None:
    used = Prediction(jobs=3, memory_MB=800.0, cpu_seconds=9.0, seconds=200.0, gpu_memory_MB=0.0, disk_MB=4.0)
    known = cost_row("align_movies", used, {"seconds": 180.0, "memory_MB": 900.0, "gpu_memory_MB": 0.0})
    other = cost_row("pick_log", used, {})
    shown = table([known, other])
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
    assert "predicted" not in "".join(table([other])["headings"])
