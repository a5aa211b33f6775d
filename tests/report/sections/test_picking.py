"""Every picker that ran is shown, with how many of its picks became particles of the map."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from cryopipe.io.mrc import write_image
from cryopipe.io.star import StarTable, write_table
from cryopipe.report.report import render_section, templates
from cryopipe.report.run_files import RunFiles
from cryopipe.report.sections import methods, picking
from tests.report.fabricated import OPTICS, files_of

USED = np.array([[20.0, 30.0], [60.0, 70.0]])


def write_micrographs(folder: Path) -> Path:
    names = ["movies/align_movies/micrographs/a.mrc", "movies/align_movies/micrographs/b.mrc"]
    (folder / names[0]).parent.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for name in names:
        write_image(folder / name, rng.normal(size=(100, 128)).astype(np.float32), 1.0)
    rows = pd.DataFrame({"rlnMicrographName": names, "crpItem": ["a", "b"], "rlnOpticsGroup": [1, 1]})
    path = folder / "ctf/consensus_ctf/defocus/batch_0001_micrographs.star"
    path.parent.mkdir(parents=True)
    write_table(path, StarTable("micrographs", OPTICS, rows))
    return path


def write_picks(folder: Path, step: str, xy: dict[str, np.ndarray]) -> Path:
    rows = pd.DataFrame(
        [{"crpItem": item, "rlnCoordinateX": x, "rlnCoordinateY": y} for item, places in xy.items() for x, y in places]
    )
    path = folder / f"picking/{step}/batch_0001_coordinates.star"
    path.parent.mkdir(parents=True)
    write_table(path, StarTable("coordinates", OPTICS, rows.assign(rlnOpticsGroup=1)))
    return path


def write_particles(folder: Path, item: str) -> Path:
    rows = pd.DataFrame({"rlnCoordinateX": USED[:, 0], "rlnCoordinateY": USED[:, 1]})
    rows = rows.assign(crpItem=item, rlnOpticsGroup=1, rlnImageName="1@a.mrcs")
    path = folder / "refinement/refine_homogeneous/run_data.star"
    path.parent.mkdir(parents=True)
    write_table(path, StarTable("particles", OPTICS, rows))
    return path


def two_pickers(folder: Path, second: str) -> RunFiles:
    # a particle of the map lies near its pick, not on it: within 0.2 diameters (26 px)
    picks = {"a": np.concatenate([USED + 3.0, [[110.0, 10.0]]]), "b": np.array([[20.0, 30.0]])}
    inputs = {
        "micrographs_with_ctf": [write_micrographs(folder)],
        "refined_particles": write_particles(folder, "a"),
        "every_coordinates": [write_picks(folder, "pick_log", picks), write_picks(folder, second, {"a": USED[:1]})],
    }
    (folder / "x.provenance.json").write_text('{"step": "pick_toy", "params": {}}')
    return files_of(folder, inputs)


def test_a_second_picker_is_counted_shown_and_cited_without_a_line_in_the_report(
    tmp_path: Path, toy_picker: str
) -> None:
    run = two_pickers(tmp_path, toy_picker)
    part = picking.build(run)
    assert part.numbers["picking"] == {
        "pick_log": {"micrographs": 2, "picks": 4, "used": 2},
        toy_picker: {"micrographs": 1, "picks": 1, "used": 1},
    }
    page = render_section(picking.SECTION, part, templates())
    assert re.findall(r"<h3>(\w+)</h3>", page) == ["pick_log", toy_picker]
    assert page.count("<img") == 4
    assert "a: 2 of 3 picks used" in page
    assert "b: 0 of 1 picks used" in page
    assert "b: 0 of 0 picks used" in page  # the second picker found nothing there
    assert "Picking toys" in render_section(methods.SECTION, methods.build(run), templates())


def test_one_picker_needs_no_heading(tmp_path: Path) -> None:
    inputs = {
        "micrographs_with_ctf": [write_micrographs(tmp_path)],
        "every_coordinates": [write_picks(tmp_path, "pick_log", {"a": USED})],
    }
    part = picking.build(files_of(tmp_path, inputs))
    assert part.numbers["picking"]["pick_log"]["used"] == 0  # nothing was refined
    assert "<h3>" not in render_section(picking.SECTION, part, templates())
