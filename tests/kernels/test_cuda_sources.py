"""Every CUDA source is accepted by the CUDA compiler, where one is installed; no GPU is needed for that."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cryopipe.kernels.cuda import _source

SOURCES = sorted(_source.FOLDER.glob("*.cu"))


def test_there_are_sources() -> None:
    assert {"slices", "orbits", "poses", "rings", "peaks", "warp"} <= {path.stem for path in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_a_source_compiles_for_a_current_gpu_without_spilling_registers(path: Path, tmp_path: Path) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")
    done = subprocess.run(
        ["nvcc", "-arch=sm_80", f"-DTHREADS={_source.THREADS}", f"-I{path.parent}", "-cubin", "-Xptxas", "-v",
         "-o", str(tmp_path / "out.cubin"), str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    spills = [line for line in done.stderr.splitlines() if "spill" in line]
    assert spills
    assert all("0 bytes spill stores, 0 bytes spill loads" in line for line in spills), done.stderr


def test_the_package_ships_its_sources() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert "kernels/cuda/*.cu" in text
    assert "kernels/cuda/*.cuh" in text
