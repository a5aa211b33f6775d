"""Numba's cache is shared by jobs that compile at the same time."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from numba.core.caching import IndexDataCacheFile

from cryopipe.kernels.cpu import cache_lock


def save_two_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Save two variants from two threads that both read the index before either writes; return what the cache then has."""
    plain = IndexDataCacheFile._load_index
    both = threading.Barrier(2)

    def slow(self: Any) -> Any:
        index = plain(self)
        try:
            both.wait(timeout=0.5)  # with the lock the second never comes
        except threading.BrokenBarrierError:
            time.sleep(0.01)
        return index

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(IndexDataCacheFile, "_load_index", slow)
        files = [IndexDataCacheFile(str(folder), "function", "stamp") for _ in range(2)]
        list(pool.map(lambda pair: pair[0].save(*pair[1]), zip(files, [("a", "for a"), ("b", "for b")], strict=True)))
    return {key: IndexDataCacheFile(str(folder), "function", "stamp").load(key) for key in "ab"}


def test_variants_that_are_compiled_at_the_same_time_are_both_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_lock.install()
    assert save_two_at_once(tmp_path, monkeypatch) == {"a": "for a", "b": "for b"}


def test_without_the_lock_they_would_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_lock.install()
    monkeypatch.setattr(IndexDataCacheFile, "save", IndexDataCacheFile.save.__wrapped__)
    assert save_two_at_once(tmp_path, monkeypatch) != {"a": "for a", "b": "for b"}


def test_a_folder_that_takes_no_lock_file_is_left_to_numba(tmp_path: Path) -> None:
    cache_lock.install()
    (tmp_path / "function.nbi.lock").mkdir()
    IndexDataCacheFile(str(tmp_path), "function", "stamp").save("a", "for a")
    assert IndexDataCacheFile(str(tmp_path), "function", "stamp").load("a") == "for a"


def test_every_process_of_an_installation_has_the_lock_before_it_compiles() -> None:
    code = (
        "import numba, numba.core.caching as c\n"
        "numba.njit(lambda x: x + 1)(1)\n"
        f"assert hasattr(c.IndexDataCacheFile.save, {cache_lock._MARK!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
