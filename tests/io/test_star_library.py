"""What starfile does with files that `star_scan` guards. A test that fails here says that a guard may go."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import starfile

from cryopipe.errors import InputError
from cryopipe.io.star_blocks import read_blocks, write_blocks

LOOP = "data_x\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n"
#: What is in the file, and the table that it holds.
MISREAD = {
    "a name of digits": ("001 406\n002 320\n", [["001", 406.0], ["002", 320.0]]),
    "a hash inside a name": ("a.mrc 1\nm#2.mrc 2\n", [["a.mrc", 1.0], ["m#2.mrc", 2.0]]),
    "a quote inside a name": ("it's 1\nb 2\n", [["it's", 1.0], ["b", 2.0]]),
    "quotes inside quotes": ("'says \"no\"' 1\nb 2\n", [['says "no"', 1.0], ["b", 2.0]]),
    "a name that spells no value": ("nan 1\nb 2\n", [["nan", 1.0], ["b", 2.0]]),
    "a row that starts with data_": ("a.mrc 1\ndata_24/b.mrc 2\n", [["a.mrc", 1.0], ["data_24/b.mrc", 2.0]]),
}
#: Damaged files, and what is said of them.
ACCEPTED = {
    "a short row": (LOOP + "a 1\nb\n", "line 6: the row has 1 values for 2 columns"),
    "a column that occurs twice": ("data_x\nloop_\n_rlnClassNumber\n_rlnClassNumber\n1 2\n", "occurs twice"),
    "a block that occurs twice": (LOOP + "a 1\n\n" + LOOP + "b 2\n", "block data_x occurs twice"),
    "a second loop in a block": ("data_x\nloop_\n_rlnMicrographName\na\nloop_\n_rlnGroupName\nb\n", "line 5: 'loop_'"),
    "no block": ("hello\n", "is before the first data_ block"),
    "bytes that are not text": (b"data_\xff\xfe\x00", "not a STAR file"),
}
#: Files that are in order and that starfile fails to read or reads in part.
LOST = {
    "an empty loop before a comment": (
        "data_e\nloop_\n_rlnCoordinateX #1\n\n# version 30001\n\n" + LOOP + "a 1\n",
        "e",
    ),
    "an empty block before another": ("data_e\n\n" + LOOP + "a 1\n", "e"),
    "a comment behind the value of a list": ("data_e\n_rlnVoltage 300 # kV\n" + LOOP + "a 1\n", "e"),
    "a quote in the value of a list": ("data_e\n_rlnMicrographName it's\n" + LOOP + "a 1\n", "e"),
    "a column called name": ("data_e\nloop_\n_name #1\n_crpB #2\nk 1\n" + LOOP + "a 1\n", "e"),
}


@pytest.mark.parametrize("case", MISREAD)
def test_starfile_changes_values_that_are_read_right_here(tmp_path, case):
    rows, right = MISREAD[case]
    (tmp_path / "t.star").write_text(LOOP + rows)
    try:
        theirs = starfile.read(tmp_path / "t.star", always_dict=True)["x"].to_numpy().tolist()
    except (ValueError, TypeError):
        theirs = "refused"
    assert theirs != right, f"starfile reads {case} now: star_scan need not guard it"
    table = read_blocks(tmp_path / "t.star")["x"]
    assert table.to_numpy().tolist() == right
    assert table["rlnCoordinateX"].dtype == np.float64


@pytest.mark.parametrize("case", ACCEPTED)
def test_starfile_accepts_damage_that_is_refused_here(tmp_path, case):
    content, message = ACCEPTED[case]
    (tmp_path / "t.star").write_bytes(content if isinstance(content, bytes) else content.encode())
    starfile.read(tmp_path / "t.star", always_dict=True)  # does not raise
    with pytest.raises(InputError, match=r"t\.star") as caught:
        read_blocks(tmp_path / "t.star")
    assert message in str(caught.value)


@pytest.mark.parametrize("case", LOST)
def test_starfile_loses_blocks_that_are_read_here(tmp_path, case):
    content, name = LOST[case]
    (tmp_path / "t.star").write_text(content)
    ours = read_blocks(tmp_path / "t.star")
    assert ours["x"].to_numpy().tolist() == [["a", 1.0]]
    try:
        theirs = starfile.read(tmp_path / "t.star", always_dict=True)
    except (ValueError, TypeError):
        return
    same = set(theirs) == set(ours) and pd.DataFrame(theirs[name]).to_numpy().tolist() == ours[name].to_numpy().tolist()
    assert not same, f"starfile reads {case} now: star_scan need not guard it"


def test_starfile_drops_the_backslashes_of_a_list(tmp_path):
    (tmp_path / "t.star").write_text("data_x\n_rlnMicrographName D:\\new\\a.mrc\n")
    assert starfile.read(tmp_path / "t.star", always_dict=True)["x"]["rlnMicrographName"] == "D:newa.mrc"
    assert read_blocks(tmp_path / "t.star")["x"]["rlnMicrographName"][0] == "D:\\new\\a.mrc"


def test_starfile_reads_a_mended_file_as_it_was_before(tmp_path):
    path = tmp_path / "t.star"
    path.write_text(LOOP + "a 1\nb 2 3\n")
    with pytest.raises(ValueError, match="Expected 2 fields"):
        starfile.read(path)
    path.write_text(LOOP + "a 1\nb 2\n")
    with pytest.raises(ValueError, match="Expected 2 fields"):
        starfile.read(path)
    assert read_blocks(path)["x"]["rlnMicrographName"].tolist() == ["a", "b"]


@pytest.mark.parametrize("word", ['says "no"', "it's", "#1", "data_x", "'q'"])
def test_starfile_does_not_quote_what_it_misreads(tmp_path, word):
    frame = pd.DataFrame({"rlnGroupName": pd.Series(["k", word], dtype="str"), "rlnCoordinateX": [1.0, 2.0]})
    starfile.write({"x": frame}, tmp_path / "t.star")
    try:
        theirs = starfile.read(tmp_path / "t.star", parse_as_string=["rlnGroupName"])["rlnGroupName"].tolist()
    except (ValueError, TypeError):
        theirs = ["refused"]
    assert theirs != ["k", word], f"starfile writes {word} so that it can read it: use its quotes"
    write_blocks(tmp_path / "u.star", {"x": frame})
    assert read_blocks(tmp_path / "u.star")["x"]["rlnGroupName"].tolist() == ["k", word]


def test_starfile_writes_the_time_and_six_decimals(tmp_path):
    text = starfile.to_string({"x": pd.DataFrame({"rlnCoordinateX": [320.123456789012]})})
    assert "320.123457" in text
    assert " at " in text.splitlines()[0]
    for name in ("a", "b"):
        write_blocks(tmp_path / name, {"x": pd.DataFrame({"rlnCoordinateX": [320.123456789012]})})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert " at " not in (tmp_path / "a").read_text()
