"""What a run used: each job once, whatever the number of its outputs, and disk by what lies in the step's folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cryopipe.workflow.costs.measured import used
from cryopipe.workflow.costs.usage import peak_memory_MB, usage


def job(folder: Path, name: str, outputs: tuple[str, ...], *, cpu: float, memory: float, step: str = "") -> None:
    for output in outputs:
        path = folder / name / f"{output}.provenance.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        took = {"seconds": 2 * cpu, "cpu_seconds": cpu + 1, "compile_seconds": 1.0, "max_rss_MB": memory}
        path.write_text(json.dumps({"step": step or Path(name).name, **took}))


def test_each_job_counts_once_without_its_compilations(tmp_path: Path) -> None:
    for i in (1, 2):
        outputs = (f"batch_000{i}_micrographs.star", f"batch_000{i}_rejected.tsv")
        job(tmp_path, "movies/align_movies", outputs, cpu=10.0 * i, memory=100.0 * i)
    job(tmp_path, "ctf/consensus_ctf/defocus", ("batch_0001_a.star",), cpu=1, memory=5, step="consensus_ctf/defocus")
    found = used(tmp_path)
    assert list(found) == ["align_movies", "consensus_ctf/defocus"]
    movies = found["align_movies"]
    assert (movies.jobs, movies.memory_MB, movies.cpu_seconds, movies.seconds) == (2, 200, 30, 60)


def test_disk_is_what_lies_in_the_folder_of_the_step(tmp_path: Path) -> None:
    job(tmp_path, "picking/pick_log", ("batch_0001_coordinates.star",), cpu=1, memory=1)
    folder = tmp_path / "picking/pick_log/work"
    folder.mkdir()
    (folder / "a").write_bytes(b"x" * 1_500_000)
    (folder / "link").symlink_to(folder / "a")
    assert used(tmp_path)["pick_log"].disk_MB == pytest.approx(1.5, abs=0.01)


def test_jobs_of_older_versions_that_say_nothing_of_their_use_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "picking/pick_log/batch_0001_coordinates.star.provenance.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"step": "pick_log", "seconds": 3.0}))
    assert used(tmp_path) == {}


def test_a_process_knows_its_largest_memory_also_when_it_has_given_it_back() -> None:
    before = peak_memory_MB()
    held = np.ones(int(before * 1e6 / 8) + 50_000_000)
    del held
    assert peak_memory_MB() > before + 300


def test_compilation_is_counted_apart_from_the_rest() -> None:
    code = (
        "from cryopipe.workflow.costs.usage import usage; import numba; from cryopipe.workflow.costs import compiler;"
        "compiler.watch_compiler(); numba.njit(lambda x: x + 1)(2); print(usage())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout.replace("'", '"'))
    assert 0.01 < said["compile_seconds"] < said["cpu_seconds"]
    assert usage()["compile_seconds"] >= 0
