"""The manifest keeps each file's place, so that a late file re-runs only the last batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryopipe.errors import ConfigError
from cryopipe.workflow.manifest import batches, extended, read_manifest, write_manifest


def test_a_file_that_sorts_early_but_comes_late_goes_to_the_end(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.txt"
    write_manifest(manifest, extended([], ["c.tif", "b.tif"]))
    later = extended(read_manifest(manifest), ["a.tif", "b.tif", "c.tif"])
    assert later == ["b.tif", "c.tif", "a.tif"]
    before, after = batches(["b.tif", "c.tif"], 2), batches(later, 2)
    assert after["batch_0001"] == before["batch_0001"]
    assert after["batch_0002"] == ["a.tif"]


def test_the_order_in_which_files_are_found_does_not_matter() -> None:
    assert extended([], ["c", "a", "b"]) == extended([], ["b", "c", "a"]) == ["a", "b", "c"]


def test_a_file_that_is_gone_stays_listed() -> None:
    assert extended(["a", "b"], ["b"]) == ["a", "b"]


def test_two_files_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="have the same name 'm1'"):
        extended([], ["x/m1.tif", "y/m1.tif"])


def test_a_manifest_that_says_the_same_is_not_written_again(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.txt"
    write_manifest(manifest, ["a", "b"])
    before = manifest.stat().st_mtime_ns
    write_manifest(manifest, ["a", "b"])
    assert manifest.stat().st_mtime_ns == before
    write_manifest(manifest, ["a", "b", "c"])
    assert read_manifest(manifest) == ["a", "b", "c"]
