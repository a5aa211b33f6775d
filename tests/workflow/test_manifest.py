"""The manifest keeps each file's place, so that a late file re-runs only the last batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryopipe.errors import ConfigError
from cryopipe.workflow.manifest import batches, read_manifest, update_manifest


def test_a_file_that_sorts_early_but_comes_late_goes_to_the_end(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.txt"
    update_manifest(manifest, ["b.tif", "c.tif"])
    assert update_manifest(manifest, ["a.tif", "b.tif", "c.tif"]) == ["b.tif", "c.tif", "a.tif"]
    before = batches(["b.tif", "c.tif"], 2)
    after = batches(read_manifest(manifest), 2)
    assert after["batch_0001"] == before["batch_0001"]
    assert after["batch_0002"] == ["a.tif"]


def test_the_order_in_which_files_are_found_does_not_matter(tmp_path: Path) -> None:
    assert update_manifest(tmp_path / "m1", ["c", "a", "b"]) == update_manifest(tmp_path / "m2", ["b", "c", "a"])


def test_a_file_that_is_gone_stays_listed(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.txt"
    update_manifest(manifest, ["a", "b"])
    assert update_manifest(manifest, ["b"]) == ["a", "b"]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="share the name 'm1'"):
        update_manifest(tmp_path / "manifest.txt", ["x/m1.tif", "y/m1.tif"])
    assert not (tmp_path / "manifest.txt").exists()
