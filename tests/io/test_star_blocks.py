from __future__ import annotations

import shutil
import subprocess
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import given, settings
from hypothesis import strategies as st

from cryopipe.errors import InputError
from cryopipe.io.star_blocks import read_blocks, write_blocks
from cryopipe.io.star_columns import column_type

needs_relion = pytest.mark.skipif(shutil.which("relion_star_printtable") is None, reason="no RELION on the PATH")


def sample() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rlnMicrographName": ["001", "002"],
            "rlnCoordinateX": [406.0, 320.123456789012],
            "rlnClassNumber": [3, 4],
            "crpReason": ["fits well", "it's #1"],
        }
    )


def test_a_micrograph_called_001_stays_text_and_a_whole_coordinate_becomes_float(tmp_path):
    (tmp_path / "t.star").write_text("data_\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n001 406\n002 320\n")
    table = read_blocks(tmp_path / "t.star")[""]
    assert list(table["rlnMicrographName"]) == ["001", "002"]
    assert table["rlnCoordinateX"].dtype == np.float64


def test_columns_without_contract_are_typed_by_their_spelling(tmp_path):
    (tmp_path / "t.star").write_text("data_\nloop_\n_crpA\n_crpB\n_crpC\n_crpD\n1 1.0 007 x\n2 3 008 1\n")
    table = read_blocks(tmp_path / "t.star")[""]
    assert [table[c].dtype.kind for c in ("crpA", "crpB")] == ["i", "f"]
    assert list(table["crpC"]) == ["007", "008"]
    assert list(table["crpD"]) == ["x", "1"]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
)
def test_floats_survive_writing_and_reading_bit_by_bit(tmp_path_factory, doubles, singles):
    path = tmp_path_factory.mktemp("star") / "t.star"
    known, unknown = pd.DataFrame({"rlnDefocusU": doubles}), pd.DataFrame({"crpX": doubles})
    write_blocks(path, {"k": known, "a": unknown, "b": pd.DataFrame({"crpY": np.float32(singles)})})
    back = read_blocks(path)
    assert back["k"]["rlnDefocusU"].to_numpy().tobytes() == np.array(doubles).tobytes()
    assert back["a"]["crpX"].to_numpy(np.float64).tobytes() == np.array(doubles).tobytes()
    assert np.array_equal(back["b"]["crpY"].to_numpy(np.float64).astype(np.float32), np.float32(singles))


#: No control characters and no surrogates.
WORDS = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=12).filter(
    lambda word: not ("'" in word and '"' in word) and not any(c in word for c in "\x85\u2028\u2029")
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.one_of(WORDS, st.sampled_from(["nan", "<NA>", "#", "_a", "data_", "loop_", "", "\\\\", "001"])), min_size=1
    )
)
def test_words_of_any_characters_survive_writing_and_reading(tmp_path_factory, words):
    path = tmp_path_factory.mktemp("star") / "t.star"
    frame = pd.DataFrame({"rlnGroupName": pd.Series(words, dtype="str"), "rlnCoordinateX": np.arange(len(words)) / 7})
    write_blocks(path, {"x": frame, "list": {"rlnGroupName": words[0], "rlnVoltage": 300.0}})
    back = read_blocks(path)
    pd.testing.assert_frame_equal(back["x"], frame)
    assert back["list"].iloc[0].tolist() == [words[0], 300.0]


def test_a_comment_behind_a_row_is_no_value(tmp_path):
    (tmp_path / "t.star").write_text(
        "data_x # all\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\na 1 # good\nb 2#\n"
    )
    with pytest.raises(InputError, match="'2#' is not a number"):
        read_blocks(tmp_path / "t.star")
    (tmp_path / "t.star").write_text(
        "data_x # all\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\na 1 # good\n#b 2\n"
    )
    assert read_blocks(tmp_path / "t.star")["x"].to_numpy().tolist() == [["a", 1.0]]


def test_the_word_that_is_not_a_number_is_named_with_its_row(tmp_path):
    (tmp_path / "t.star").write_text("data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n1 True\n2 True\n")
    with pytest.raises(InputError, match="rlnCoordinateY, row 1: 'True' is not a number"):
        read_blocks(tmp_path / "t.star")


def test_single_precision_keeps_its_shortest_form_and_no_number_is_nan(tmp_path):
    write_blocks(
        tmp_path / "t.star",
        {"x": pd.DataFrame({"crpX": np.float32([0.85378, np.nan]), "rlnVoltage": [np.inf, np.nan]})},
    )
    assert (tmp_path / "t.star").read_text().splitlines()[-3:-1] == ["0.85378\tinf", "nan\tnan"]
    back = read_blocks(tmp_path / "t.star")["x"]
    assert back["rlnVoltage"][0] == np.inf
    assert back.iloc[1].isna().all()


def test_a_second_write_of_what_was_read_gives_the_same_bytes(tmp_path):
    write_blocks(tmp_path / "a.star", {"particles": sample(), "general": {"rlnFinalResolution": 3.25}})
    blocks = read_blocks(tmp_path / "a.star")
    write_blocks(tmp_path / "b.star", {"particles": blocks["particles"], "general": dict(blocks["general"].iloc[0])})
    assert (tmp_path / "a.star").read_bytes() == (tmp_path / "b.star").read_bytes()


def test_starfile_reads_the_same_values(tmp_path):
    write_blocks(tmp_path / "t.star", {"particles": sample().drop(columns="crpReason"), "general": {"rlnNrClasses": 2}})
    other = starfile.read(tmp_path / "t.star", always_dict=True, parse_as_string=["rlnMicrographName"])
    assert list(other["particles"]["rlnMicrographName"]) == ["001", "002"]
    assert list(other["particles"]["rlnCoordinateX"]) == [406.0, 320.123456789012]
    assert other["general"] == {"rlnNrClasses": 2}


@pytest.mark.parametrize("version", [30001, 50001])
def test_the_version_of_the_layout_is_written_before_each_block(tmp_path, version):
    write_blocks(tmp_path / "t.star", {"optics": sample(), "particles": sample()}, version=version)
    assert (tmp_path / "t.star").read_text().count(f"# version {version}\n") == 2


@pytest.mark.relion
@needs_relion
def test_relion_prints_the_values_that_were_written(tmp_path):
    write_blocks(tmp_path / "t.star", {"optics": sample().head(1), "particles": sample().drop(columns="crpReason")})
    run = subprocess.run(
        ["relion_star_printtable", str(tmp_path / "t.star"), "data_particles", "rlnMicrographName", "rlnCoordinateX"],
        capture_output=True,
        text=True,
        check=True,
    )
    words = [line.split() for line in run.stdout.splitlines() if line.strip()]
    assert [row[0] for row in words] == ["001", "002"]
    # RELION prints six decimals
    assert [float(row[1]) for row in words] == pytest.approx([406.0, 320.123457], abs=1e-6)


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_refine") is None, reason="no RELION on the PATH")
def test_contracts_agree_with_the_types_of_relions_labels():
    run = subprocess.run(["relion_refine", "--print_metadata_labels"], capture_output=True, text=True, check=False)
    kinds = {"(double)": "float", "(int)": "int", "(bool)": "int", "(string)": "text", "(vector<double>)": "text"}
    labels = {
        words[0]: kinds[words[1]]
        for line in run.stdout.splitlines()
        if (words := line.split())[1:2] and words[1] in kinds
    }
    ours = {name: column_type(name) for name in labels if column_type(name) is not None}
    assert len(ours) > 100
    # a micrograph's group in RELION may be a name; bool is stored as 0 and 1
    assert {n: (k, labels[n]) for n, k in ours.items() if k != labels[n]} == {}


def test_tables_without_rows_keep_their_columns(tmp_path):
    write_blocks(tmp_path / "t.star", {"particles": sample().head(0), "after": sample()})
    back = read_blocks(tmp_path / "t.star")
    assert list(back["particles"].columns) == list(sample().columns)
    assert len(back["particles"]) == 0
    assert len(back["after"]) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no data_ block"),
        ("loop_\n_a\n1\n", "before the first data_ block"),
        (
            "data_x\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 2\n3\n",
            "line 6: the row has 1 values for 2 columns",
        ),
        (
            "data_x\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 2\n1 2 3\n",
            "line 6: the row has 3 values for 2 columns",
        ),
        (
            "data_x\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 2 3\n1 2 3\n",
            "line 5: the row has 3 values for 2 columns",
        ),
        ("data_x\nloop_\n_rlnCoordinateX #1\n_rlnImageName #2\n1 a\n2\n", "line 6: the row has 1 values for 2 columns"),
        ("data_x\nloop_\n_rlnCoordinateX #1\nhello\n", "'hello' is not a number"),
        ("data_x\nloop_\n_rlnClassNumber #1\n1.5\n", "'1.5' is not a whole number"),
        ("data_x\nloop_\n_rlnClassNumber #1\n_rlnClassNumber #2\n1 2\n", "occurs twice"),
        ("data_x\n_a 1\ndata_x\n_b 1\n", "block data_x occurs twice"),
        ("data_x\n_rlnVoltage\n", "not a pair"),
    ],
)
def test_a_damaged_file_is_refused_with_its_name_and_what_is_wrong(tmp_path, text, message):
    (tmp_path / "bad.star").write_text(text)
    with pytest.raises(InputError, match=r"bad\.star") as caught:
        read_blocks(tmp_path / "bad.star")
    assert message in str(caught.value)


def test_a_quote_in_one_value_changes_no_other_value(tmp_path):
    plain = sample().drop(columns="crpReason")
    write_blocks(tmp_path / "t.star", {"quoted": sample(), "plain": plain})
    back = read_blocks(tmp_path / "t.star")
    pd.testing.assert_frame_equal(back["quoted"].drop(columns="crpReason"), back["plain"])
    assert list(back["quoted"]["crpReason"]) == ["fits well", "it's #1"]


def test_words_that_spell_nothing_stay_words(tmp_path):
    (tmp_path / "t.star").write_text("data_\nloop_\n_rlnMicrographName\n_rlnGroupName\nNA null\nNone nan\n")
    table = read_blocks(tmp_path / "t.star")[""]
    assert table.to_numpy().tolist() == [["NA", "null"], ["None", "nan"]]


def test_whole_numbers_written_with_decimals_are_whole(tmp_path):
    (tmp_path / "t.star").write_text("data_\nloop_\n_rlnClassNumber #1\n3.000000\n4.000000\n")
    table = read_blocks(tmp_path / "t.star")[""]
    assert table["rlnClassNumber"].tolist() == [3, 4]
    assert table["rlnClassNumber"].dtype == np.int64


def test_missing_and_binary_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="the STAR file does not exist"):
        read_blocks(tmp_path / "none.star")
    (tmp_path / "b.star").write_bytes(b"data_\xff\xfe\x00")
    with pytest.raises(InputError, match="not a STAR file"):
        read_blocks(tmp_path / "b.star")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"rlnClassNumber": [1.0]}), "must have whole numbers"),
        (pd.DataFrame({"rlnCoordinateX": ["a"]}), "must have float"),
        (pd.DataFrame({"rlnMicrographName": [1]}), "must have text"),
        (pd.DataFrame({"two words": [1]}), "cannot be a column name"),
        (pd.DataFrame({"crpReason": ["a\nb"]}), "line break"),
        (pd.DataFrame({"crpReason": ["a\tb"]}), "line break or a tab"),
        (pd.DataFrame([[1, 2]], columns=["rlnClassNumber", "rlnClassNumber"]), "occurs twice"),
        (pd.DataFrame({"crpReason": ["a", None]}, dtype=object), "mixes text"),
    ],
)
def test_what_breaks_a_contract_is_not_written(tmp_path, frame, message):
    with pytest.raises(InputError, match=message):
        write_blocks(tmp_path / "t.star", {"x": frame})
    assert list(tmp_path.iterdir()) == []


def test_portions_of_rows_change_no_byte_of_a_file(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"rlnMicrographName": [f"m {i}" for i in range(23)], "rlnCoordinateX": rng.normal(0, 1e3, 23)})
    table = table.assign(rlnClassNumber=np.arange(23), crpX=np.float32(rng.normal(size=23)))
    for portion, name in ((5000, "whole"), (5, "parts"), (23, "one")):
        monkeypatch.setattr("cryopipe.io.star_blocks._PORTION", portion)
        write_blocks(tmp_path / name, {"particles": table, "none": table.iloc[:0], "general": {"rlnClassNumber": 3}})
    texts = {(tmp_path / name).read_bytes() for name in ("whole", "parts", "one")}
    assert len(texts) == 1


def test_writing_takes_memory_for_a_portion_and_not_for_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr("cryopipe.io.star_blocks._PORTION", 500)

    def peak(rows):
        table = pd.DataFrame(
            {"rlnMicrographName": [f"mic_{i:05d}.mrc" for i in range(rows)], "crpX": np.arange(rows) / 7}
        )
        write_blocks(tmp_path / "t.star", {"particles": table})
        tracemalloc.start()
        write_blocks(tmp_path / "t.star", {"particles": table})
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(8000) < 1.5 * peak(1000)


def test_a_bad_value_behind_the_first_portion_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("cryopipe.io.star_blocks._PORTION", 2)
    path = tmp_path / "t.star"
    path.write_text("old")
    with pytest.raises(InputError, match="line break"):
        write_blocks(path, {"a": pd.DataFrame({"rlnMicrographName": ["a", "b", "c\nd"]})})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
