"""Names of archived files, lists of them, and what HTML indices say."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryopipe.errors import InputError
from cryopipe.io.public_archive.archive import (
    EMPIAR_URL,
    ArchiveFile,
    address,
    list_archive,
    matches,
    parse_list,
    parse_pattern,
)
from cryopipe.io.public_archive.request import fetch_page
from tests.archive_server import serve

MD5, SHA256 = "0123456789abcdef" * 2, "0123456789ABCDEF" * 4


def test_an_archived_file_has_its_address_below_the_entry() -> None:
    found = address(EMPIAR_URL, "empiar:10248/data/a b#1.tif")
    assert found == "https://ftp.ebi.ac.uk/empiar/world_availability/10248/data/a%20b%231.tif"


@pytest.mark.parametrize(
    "name",
    ["empiar:10248", "empiar:10248/", "empiar:x/a.tif", "empiar:10248/../a.tif", "empiar:10248//a", "empiar:7/a"],
)
def test_other_names_are_refused_with_an_example(name: str) -> None:
    with pytest.raises(InputError, match=r"such as empiar:10248/data/\*\.tif"):
        parse_pattern(name)


@pytest.mark.parametrize(
    ("path", "pattern", "fits"),
    [
        ("data/a.tif", "data/*.tif", True),
        ("data/x/a.tif", "data/*.tif", False),
        ("data/x/a.tif", "data/*/*.tif", True),
        ("data/a.tif", "data/**/*.tif", True),
        ("data/x/y/a.tif", "data/**/*.tif", True),
        ("data/a.TIF", "data/*.tif", False),
        ("data/a1.tif", "data/a[12].tif", True),
        ("data", "data/**", True),
    ],
)
def test_a_star_stays_in_its_folder_and_two_stars_do_not(path: str, pattern: str, fits: bool) -> None:
    assert matches(path, pattern.split("/")) == fits


def test_a_list_may_state_checksum_size_both_or_neither_and_is_written_as_it_is_read() -> None:
    text = f"# comment\n{MD5}  ./data/a b.tif\n\n{SHA256} *data/c.tif\n{MD5}\t123 data/d.tif\n456  data/e.tif\ndata/f.tif\n"
    files = parse_list(text, "list.txt")
    assert files == [
        ArchiveFile("data/a b.tif", None, MD5),
        ArchiveFile("data/c.tif", None, SHA256.lower()),
        ArchiveFile("data/d.tif", 123, MD5),
        ArchiveFile("data/e.tif", 456),
        ArchiveFile("data/f.tif"),
    ]
    assert parse_list("\n".join(file.line() for file in files), "") == files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\na\n", "list.txt, line 3: a occurs twice"),
        (f"a\n{MD5}  ../b\n", "list.txt, line 2: '../b' is not a path inside"),
        ("/etc/passwd\n", "line 1: '/etc/passwd' is not a path inside"),
    ],
)
def test_a_wrong_line_of_a_list_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_list(text, "list.txt")


def test_indices_are_walked_only_where_the_pattern_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("data/day 1/m1.tif", "data/day 1/m2.tif", "data/day 1/log.txt", "data/day 2/m3.tif", "other/m4.tif"):
        file = tmp_path / "10248" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    with serve(tmp_path) as archive:

        def found(pattern: str) -> tuple[list[str], list[str]]:
            archive.requests.clear()
            files = list_archive(parse_pattern(f"empiar:10248/{pattern}"), archive.url, fetch_page)
            return [file.path for file in files], sorted(path for _, path, _ in archive.requests)

        assert found("data/day 1/*.tif") == (["data/day 1/m1.tif", "data/day 1/m2.tif"], ["10248/data/day 1/"])
        everything, asked = found("data/**/m*.tif")
        assert everything == ["data/day 1/m1.tif", "data/day 1/m2.tif", "data/day 2/m3.tif"]
        assert asked == ["10248/data/", "10248/data/day 1/", "10248/data/day 2/"]
        assert found("*/*/m[34].tif")[0] == ["data/day 2/m3.tif"]
        assert found("data/day 9/a.tif") == (["data/day 9/a.tif"], [])
        assert found("data/*.tif")[0] == []


def test_links_that_lead_elsewhere_are_not_followed() -> None:
    page = (
        '<a href="?C=N">x</a><a href="/10248/">up</a><a href="http://other/10248/data/b.tif">b</a><a href="a.tif">a</a>'
    )
    files = list_archive(parse_pattern("empiar:10248/data/*.tif"), "http://here", lambda url: page)
    assert files == [ArchiveFile("data/a.tif")]


def test_an_index_that_leads_in_circles_ends_with_a_message() -> None:
    with pytest.raises(InputError, match="too many folders"):
        list_archive(parse_pattern("empiar:10248/**/x.tif"), "http://here", lambda url: '<a href="again/">again</a>')
