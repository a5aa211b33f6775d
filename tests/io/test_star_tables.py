from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import starfile

from cryopipe.errors import InputError
from cryopipe.io.star import (
    StarTable,
    concatenate,
    make_optics,
    optics_of,
    read_rejections,
    read_table,
    write_rejections,
    write_table,
)
from tests.io.realdata import REALDATA, needs_realdata


def particles(*, pixel_A: float = 1.2, n: int = 3, name: str = "opticsGroup1") -> StarTable:
    optics = make_optics(
        voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.1, image_pixel_size_A=pixel_A, image_size=64, name=name
    )
    rows = pd.DataFrame(
        {
            "rlnImageName": pd.Series([f"{i + 1:06d}@stack.mrcs" for i in range(n)], dtype="str"),
            "rlnOriginXAngst": np.linspace(-1, 1, n),
            "rlnOpticsGroup": np.ones(n, dtype=np.int64),
        }
    )
    return StarTable("particles", optics, rows)


@pytest.mark.parametrize("n", [0, 3])
def test_a_table_is_the_same_after_writing_and_reading(tmp_path, n):
    table = particles(n=n)
    write_table(tmp_path / "p.star", table)
    back = read_table(tmp_path / "p.star", "particles")
    pd.testing.assert_frame_equal(back.optics, table.optics)
    pd.testing.assert_frame_equal(back.rows, table.rows)


def test_rows_are_joined_with_their_own_optics_group_in_their_order():
    both = concatenate([particles(name="a"), particles(name="b", pixel_A=2.4)])
    mixed = both.with_rows(both.rows.iloc[[5, 0, 4]])
    joined = mixed.with_optics()
    assert list(joined["rlnImagePixelSize"]) == [2.4, 1.2, 2.4]
    assert list(joined["rlnImageName"]) == [both.rows["rlnImageName"][i] for i in (5, 0, 4)]
    assert list(optics_of(mixed)["rlnOpticsGroupName"]) == ["b", "a", "b"]


def test_a_row_of_an_unknown_optics_group_is_refused(tmp_path):
    table = particles()
    lost = table.with_rows(table.rows.assign(rlnOpticsGroup=7))
    with pytest.raises(InputError, match="optics group 7"):
        lost.with_optics()
    with pytest.raises(InputError, match="optics group 7"):
        write_table(tmp_path / "p.star", lost)
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_is_not_finite_is_not_written(tmp_path):
    table = particles()
    bad = table.with_rows(table.rows.assign(rlnOriginXAngst=[0.0, np.nan, 1.0]))
    with pytest.raises(InputError, match="rlnOriginXAngst, row 2 is nan"):
        write_table(tmp_path / "p.star", bad)
    assert list(tmp_path.iterdir()) == []


def test_equal_optics_groups_become_one_and_others_are_renumbered():
    joined = concatenate([particles(name="a"), particles(name="b"), particles(name="a", n=2), particles(name="c", n=0)])
    assert list(joined.optics["rlnOpticsGroupName"]) == ["a", "b", "c"]
    assert list(joined.optics["rlnOpticsGroup"]) == [1, 2, 3]
    assert list(joined.rows["rlnOpticsGroup"]) == [1, 1, 1, 2, 2, 2, 1, 1]


@pytest.mark.parametrize(("ratio", "refused"), [(1.0009, False), (1.0011, True)])
def test_pixel_sizes_of_one_group_may_differ_by_one_in_a_thousand(ratio, refused):
    tables = [particles(), particles(pixel_A=1.2 * ratio)]
    if refused:
        with pytest.raises(InputError, match=r"rlnImagePixelSize is 1\.2 in one table and 1\.20132"):
            concatenate(tables)
    else:
        assert len(concatenate(tables)) == 6


def test_tables_of_other_kind_or_columns_are_not_joined():
    with pytest.raises(InputError, match="different kinds"):
        concatenate([particles(), particles().with_rows(particles().rows, kind="coordinates")])
    other = particles()
    with pytest.raises(InputError, match="only one of them has crpScore"):
        concatenate([particles(), other.with_rows(other.rows.assign(crpScore=1.0))])
    with pytest.raises(InputError, match="nothing to join"):
        concatenate([])


def test_a_value_shared_by_all_groups_is_given_and_a_conflict_refused():
    assert concatenate([particles(name="a"), particles(name="b")]).single("rlnImagePixelSize") == 1.2
    with pytest.raises(InputError, match=r"1\.2, 2\.4"):
        concatenate([particles(name="a"), particles(name="b", pixel_A=2.4)]).single("rlnImagePixelSize")
    with pytest.raises(InputError, match="lacks rlnMicrographPixelSize"):
        particles().single("rlnMicrographPixelSize")


RELION_3_0 = """
data_

loop_
_rlnImageName #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnDetectorPixelSize #5
_rlnMagnification #6
_rlnOriginX #7
_rlnOriginY #8
000001@a.mrcs 300 2.7 0.1 5.0 25000 1.5 -2
000002@a.mrcs 200 2.7 0.1 5.0 25000 0 3
000003@a.mrcs 300 2.7 0.1 5.0 25000 0.25 0
"""


def test_a_relion_3_0_table_gets_optics_groups_and_origins_in_angstrom(tmp_path):
    (tmp_path / "p.star").write_text(RELION_3_0)
    table = read_table(tmp_path / "p.star", "particles")
    # 5 µm / 25000 = 2 Å
    assert list(table.optics["rlnImagePixelSize"]) == [2.0, 2.0]
    assert list(table.optics["rlnVoltage"]) == [300.0, 200.0]
    assert list(table.rows["rlnOpticsGroup"]) == [1, 2, 1]
    assert list(table.rows["rlnOriginXAngst"]) == [3.0, 0.0, 0.5]
    assert list(table.rows["rlnOriginYAngst"]) == [-4.0, 6.0, 0.0]
    assert not {"rlnOriginX", "rlnVoltage", "rlnDetectorPixelSize"} & set(table.rows.columns)


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_convert_star") is None, reason="no RELION on the PATH")
def test_relions_own_conversion_of_a_3_0_table_gives_the_same_values(tmp_path):
    (tmp_path / "p.star").write_text(RELION_3_0.replace("200 2.7", "300 2.7"))
    subprocess.run(
        ["relion_convert_star", "--i", "p.star", "--o", "q.star"], cwd=tmp_path, capture_output=True, check=False
    )
    if not (tmp_path / "q.star").exists():
        pytest.skip("relion_convert_star did not convert (it looks into the stacks)")
    theirs, ours = read_table(tmp_path / "q.star", "particles"), read_table(tmp_path / "p.star", "particles")
    assert theirs.single("rlnImagePixelSize") == pytest.approx(ours.single("rlnImagePixelSize"), abs=1e-6)
    for column in ("rlnOriginXAngst", "rlnOriginYAngst"):
        assert list(theirs.rows[column]) == pytest.approx(list(ours.rows[column]), abs=1e-6)


def test_an_old_table_that_says_no_pixel_size_or_voltage_is_refused(tmp_path):
    (tmp_path / "p.star").write_text("data_\nloop_\n_rlnImageName\n_rlnVoltage\n1@a.mrcs 300\n")
    with pytest.raises(InputError, match=r"rlnSphericalAberration, a pixel size"):
        read_table(tmp_path / "p.star", "particles")
    (tmp_path / "q.star").write_text("data_\nloop_\n_rlnImageName\n_rlnOriginX\n1@a.mrcs 3\n")
    with pytest.raises(InputError, match="rlnOriginX is in pixels"):
        read_table(tmp_path / "q.star", "particles")


def test_a_table_of_another_kind_is_refused(tmp_path):
    write_table(tmp_path / "p.star", particles())
    with pytest.raises(
        InputError, match=r"the block data_micrographs is missing, there is only data_optics, data_particles"
    ):
        read_table(tmp_path / "p.star", "micrographs")


def test_coordinates_need_no_optics(tmp_path):
    rows = pd.DataFrame({"rlnMicrographName": ["001"], "rlnCoordinateX": [1.0], "rlnCoordinateY": [2.0]})
    optics = pd.DataFrame({"rlnOpticsGroup": np.array([], dtype=np.int64)})
    write_table(tmp_path / "c.star", StarTable("coordinates", optics, rows))
    back = read_table(tmp_path / "c.star", "coordinates")
    assert back.optics.empty
    assert list(back.rows["rlnMicrographName"]) == ["001"]


@dataclass
class Entry:
    item: str
    kind: str
    reason: str


def test_rejections_are_the_same_after_writing_and_reading(tmp_path):
    entries = [Entry("m1", "quarantined", "cut off:\t10 of 20\nbytes"), Entry("m2", "rejected", 'says "no"')]
    write_rejections(tmp_path / "r.tsv", entries)
    assert (tmp_path / "r.tsv").read_text().splitlines()[0] == "item\tkind\treason"
    back = read_rejections(tmp_path / "r.tsv")
    assert [tuple(r) for r in back] == [
        ("m1", "quarantined", "cut off: 10 of 20 bytes"),
        ("m2", "rejected", 'says "no"'),
    ]
    write_rejections(tmp_path / "r.tsv", [])
    assert read_rejections(tmp_path / "r.tsv") == []


def test_another_file_is_no_list_of_rejections(tmp_path):
    (tmp_path / "r.tsv").write_text("a\tb\n")
    with pytest.raises(InputError, match="must have the three columns"):
        read_rejections(tmp_path / "r.tsv")


@pytest.mark.realdata
@needs_realdata
@pytest.mark.parametrize(
    ("name", "kind", "rows", "pixel_A"),
    [
        # detector pixel x 10^4 / magnification, or the optics table's value
        ("interop/empiar_10076_7.star", "particles", 7, 5e4 / 38168),
        ("interop/relion31.star", "particles", 5, 2.806),
        ("interop/relion_tests_ap_s_c2d_EMPIAR10017.star", "particles", 8915, 14e4 / 39548),
        ("interop/topaz_EMPIAR10025_particles.star", "particles", 1500, 3.733333e4 / 38023),
        ("interop/topaz_EMPIAR10025_ctf_params.star", "micrographs", 30, 2.5e4 / 38023),
    ],
)
def test_tables_of_other_programs_are_read_with_their_pixel_size(name, kind, rows, pixel_A, tmp_path):
    table = read_table(REALDATA / name, kind)
    assert len(table) == rows
    column = "rlnImagePixelSize" if kind == "particles" else "rlnMicrographPixelSize"
    # group values are rounded to 1e-6 Å so that noise of the quotient does not split groups
    assert table.single(column) == pytest.approx(pixel_A, abs=6e-7)
    other = next(v for k, v in starfile.read(REALDATA / name, always_dict=True).items() if k != "optics")
    for shared in {"rlnDefocusU", "rlnCoordinateX", "rlnAngleRot", "rlnMicrographName"} & set(other.columns):
        # starfile takes a micrograph called 1 for a number
        assert list(table.rows[shared]) == list(other[shared].astype(table.rows[shared].dtype))
    write_table(tmp_path / "again.star", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "again.star", kind).rows, table.rows)


@pytest.mark.realdata
@needs_realdata
@pytest.mark.parametrize(
    ("name", "rows"), [("empiar-10146/labels.star", 1645), ("micrographs/Ucsf_cleaner__autopick.star", 45)]
)
def test_coordinate_files_of_other_programs_are_read(name, rows):
    table = read_table(REALDATA / name, "coordinates")
    assert len(table) == rows
    assert table.rows["rlnCoordinateX"].dtype == np.float64
