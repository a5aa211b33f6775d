from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryopipe.config.movies import ImportMicrographs
from cryopipe.context import Context
from cryopipe.io.mrc import write_image, write_stack
from cryopipe.io.star import StarTable, read_rejections, read_table
from cryopipe.movies import import_micrographs
from tests.io.realdata import REALDATA, needs_realdata

FACTS = {"pixel_size_A": 1.5, "voltage_kV": 300.0, "cs_mm": 0.001, "amplitude_contrast": 0.07}


def make_micrograph(path: Path, *, shape: tuple[int, int] = (40, 60), pixel_A: float = 1.5, seed: int = 0) -> str:
    write_image(path, np.random.default_rng(seed).normal(size=shape).astype(np.float32), pixel_A)
    return str(path)


def run(tmp_path: Path, paths: list[str], **options: object) -> tuple[StarTable, dict[str, str]]:
    params = ImportMicrographs.model_validate({"paths": paths, **FACTS, **options})
    outputs = {"micrographs": tmp_path / "micrographs.star", "rejected": tmp_path / "rejected.tsv"}
    context = Context("import_micrographs", tmp_path / "work", threads=2, max_failed_fraction=1.0)
    import_micrographs.main({}, outputs, params, context)
    rejected = {r.item: r.reason for r in read_rejections(outputs["rejected"])}
    return read_table(outputs["micrographs"], "micrographs"), rejected


def test_a_micrograph_without_twin_serves_both_purposes(tmp_path):
    paths = [make_micrograph(tmp_path / "001.mrc"), make_micrograph(tmp_path / "b.mrc")]
    table, rejected = run(tmp_path, paths)
    assert rejected == {}
    assert list(table.rows["rlnMicrographName"]) == paths
    assert list(table.rows["crpMicrographNameDW"]) == paths
    assert list(table.rows["crpItem"]) == ["001", "b"]
    assert table.single("rlnMicrographPixelSize") == 1.5
    assert table.single("rlnMicrographOriginalPixelSize") == 1.5


def test_a_dose_weighted_twin_is_found_by_its_ending(tmp_path):
    paths = [
        make_micrograph(tmp_path / "a.mrc"),
        make_micrograph(tmp_path / "b.mrc"),
        make_micrograph(tmp_path / "c.mrc"),
    ]
    twin = make_micrograph(tmp_path / "a_DW.mrc")
    make_micrograph(tmp_path / "c_DW.mrc", shape=(40, 58))
    table, rejected = run(tmp_path, paths, dose_weighted_suffix="_DW")
    assert list(table.rows["crpMicrographNameDW"]) == [twin]
    assert "b_DW.mrc: the MRC file does not exist" in rejected["b"]
    assert "58 x 40 px" in rejected["c"]


def test_each_bad_micrograph_is_quarantined_with_its_reason(tmp_path):
    good = [make_micrograph(tmp_path / f"good{i}.mrc", seed=i) for i in range(2)]
    write_image(tmp_path / "blank.mrc", np.ones((40, 60), np.float32), 1.5)
    write_stack(tmp_path / "movie.mrcs", np.zeros((3, 40, 60), np.float32), 1.5)
    (tmp_path / "movie.mrcs").rename(tmp_path / "movie.mrc")
    make_micrograph(tmp_path / "pixel.mrc", pixel_A=1.51)
    make_micrograph(tmp_path / "small.mrc", shape=(38, 60))
    data = bytearray((tmp_path / "good0.mrc").read_bytes())
    data[2000:2004] = np.float32(np.nan).tobytes()
    (tmp_path / "nan.mrc").write_bytes(data)
    (tmp_path / "x.png").write_bytes(b"x")
    names = ("blank.mrc", "movie.mrc", "pixel.mrc", "small.mrc", "nan.mrc", "x.png", "gone.mrc")
    table, rejected = run(tmp_path, [*good, *(str(tmp_path / name) for name in names)])
    assert list(table.rows["crpItem"]) == ["good0", "good1"]
    assert len(rejected) == len(names)
    for item, words in {
        "blank": "have the value 1",
        "movie": "3 sections",
        "pixel": "header has 1.51 Å per pixel, but dataset.pixel_size_A has 1.5 Å",
        "small": "60 x 38 px in an optics group of 60 x 40 px",
        "nan": "1 values are not finite",
        "x": "this one has .png",
        "gone": "the MRC file does not exist",
    }.items():
        assert words in rejected[item]


def test_an_empty_batch_gives_an_empty_table_with_all_columns(tmp_path):
    table, rejected = run(tmp_path, [])
    assert list(table.rows.columns) == list(import_micrographs.COLUMNS)
    assert len(table) == 0
    assert rejected == {}


@pytest.mark.realdata
@needs_realdata
def test_the_real_micrographs_of_empiar_10146_are_all_registered(tmp_path):
    paths = sorted(map(str, (REALDATA / "empiar-10146").glob("*.mrc")))
    table, rejected = run(tmp_path, paths)
    assert rejected == {}
    assert len(table) == 10
    assert set(table.rows["rlnImageSizeX"]) == {1240}
    assert set(table.rows["rlnImageSizeY"]) == {1200}
    _, rejected = run(tmp_path, paths, pixel_size_A=1.4)
    assert len(rejected) == 10


def test_micrographs_of_several_groups_carry_the_facts_of_their_own(tmp_path):
    paths = [make_micrograph(tmp_path / f"{name}.mrc", seed=i) for i, name in enumerate(["a1", "b1", "a2"])]
    groups = [{"name": "a", "files": "a*.mrc"}, {"name": "b", "files": "b*.mrc", "voltage_kV": 200.0}]
    table, rejected = run(tmp_path, paths, optics_groups=groups)
    assert rejected == {}
    assert list(table.rows["rlnOpticsGroup"]) == [1, 2, 1]
    assert list(table.optics["rlnVoltage"]) == [300, 200]
    assert set(table.optics["rlnMicrographPixelSize"]) == {1.5}
