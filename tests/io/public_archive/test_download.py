"""A download is the whole file or no file, whatever the server does."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cryopipe.errors import CryopipeError, InputError
from cryopipe.io.public_archive import download as module
from cryopipe.io.public_archive.download import download
from cryopipe.io.public_archive.request import fetch_page
from tests.archive_server import Archive, serve

DATA = np.random.default_rng(5).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
NAME = "a b.tif"


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / NAME).write_bytes(DATA)
    with serve(tmp_path / "archive") as server:
        yield server


def fetch(archive: Archive, path: Path, **options: object) -> int:
    settings = {"attempts": 3, "wait_s": 0.01, "timeout_s": 5.0, **options}
    return download(f"{archive.url}/a%20b.tif", path, **settings)  # type: ignore[arg-type]


def left_beside(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if p != path)


def test_a_whole_file_lies_alone_in_its_folder_and_is_not_asked_for_again(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.tif"
    said: list[tuple[int, int | None]] = []
    assert fetch(archive, path, progress=lambda have, total: said.append((have, total))) == len(DATA)
    assert path.read_bytes() == DATA
    assert left_beside(path) == []
    assert said[-1] == (len(DATA), len(DATA))
    assert fetch(archive, path) == len(DATA)
    assert archive.ranges(NAME) == [None]


def test_a_dropped_connection_costs_only_what_is_missing(archive: Archive, tmp_path: Path) -> None:
    archive.drop[NAME] = [1_000_000, 1_500_000]
    fetch(archive, tmp_path / "out" / "a.tif")
    assert (tmp_path / "out" / "a.tif").read_bytes() == DATA
    assert archive.ranges(NAME) == [None, "bytes=1000000-", "bytes=2500000-"]
    assert left_beside(tmp_path / "out" / "a.tif") == []


def test_a_server_that_ignores_the_range_starts_again_and_appends_nothing(archive: Archive, tmp_path: Path) -> None:
    archive.drop[NAME] = [1_000_000]
    archive.ignore_range[NAME] = 1
    fetch(archive, tmp_path / "a.tif")
    assert (tmp_path / "a.tif").read_bytes() == DATA


def test_a_file_that_changed_while_it_was_received_is_not_patched_together(archive: Archive, tmp_path: Path) -> None:
    archive.drop[NAME] = [1_000_000] * 3
    with pytest.raises(InputError, match="the connection ended after 1000000 of 3000000 bytes"):
        fetch(archive, tmp_path / "a.tif", attempts=1)
    archive.drop.clear()
    other = bytes(reversed(DATA))
    (archive.folder / NAME).write_bytes(other)
    os.utime(archive.folder / NAME, ns=(1, 1))
    fetch(archive, tmp_path / "a.tif")
    assert (tmp_path / "a.tif").read_bytes() == other


def test_a_size_that_differs_from_what_was_said_before_is_not_believed(archive: Archive, tmp_path: Path) -> None:
    archive.wrong_size[NAME] = 1
    fetch(archive, tmp_path / "a.tif")
    assert (tmp_path / "a.tif").read_bytes() == DATA
    with pytest.raises(InputError, match="the server sends 3000000 bytes, but the file should have 2999999"):
        fetch(archive, tmp_path / "b.tif", size=len(DATA) - 1)
    assert not (tmp_path / "b.tif").exists()


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_wrong_checksum_is_received_anew_and_given_up_when_it_stays(
    archive: Archive, tmp_path: Path, kind: str
) -> None:
    right = hashlib.new(kind, DATA).hexdigest()
    archive.corrupt[NAME] = 1
    fetch(archive, tmp_path / "a.tif", checksum=right.upper())
    assert (tmp_path / "a.tif").read_bytes() == DATA
    archive.corrupt[NAME] = 3
    with pytest.raises(InputError, match=rf"not received in 3 attempts.*its {kind} is [0-9a-f]+ instead of {right}"):
        fetch(archive, tmp_path / "b.tif", checksum=right)
    assert not (tmp_path / "b.tif").exists()
    assert archive.ranges(NAME)[2:] == [None, None, None]


def test_a_kept_file_of_other_contents_is_replaced(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(DATA[:-1] + b"?")
    fetch(archive, tmp_path / "a.tif", checksum=hashlib.md5(DATA).hexdigest())
    assert (tmp_path / "a.tif").read_bytes() == DATA


def test_what_is_not_there_is_given_up_at_once(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.tif: the server answers 404 Not Found"):
        download(f"{archive.url}/none.tif", tmp_path / "x.tif", attempts=5, wait_s=10)
    assert len(archive.requests) == 1


def test_a_busy_server_is_asked_again(archive: Archive, tmp_path: Path) -> None:
    archive.busy[NAME] = 2
    fetch(archive, tmp_path / "a.tif")
    assert len(archive.ranges(NAME)) == 3


def test_attempts_are_bounded_and_the_pauses_grow(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    archive.busy[NAME] = 100
    with pytest.raises(
        InputError, match=r"not received in 4 attempts; reason of the last failure: the server answers 503"
    ):
        fetch(archive, tmp_path / "a.tif", attempts=4, wait_s=30.0)
    assert pauses == [30.0, 60.0, 120.0]


def test_a_silent_server_ends_the_attempt_and_the_next_goes_on_from_there(archive: Archive, tmp_path: Path) -> None:
    archive.hang[NAME] = 2_000_000
    fetch(archive, tmp_path / "a.tif", timeout_s=0.5)
    assert (tmp_path / "a.tif").read_bytes() == DATA
    assert archive.ranges(NAME) == [None, "bytes=2000000-"]


def test_a_killed_download_goes_on_where_it_was(archive: Archive, tmp_path: Path) -> None:
    archive.hang[NAME] = 2_000_000
    path = tmp_path / "out" / "a.tif"
    code = (
        "import sys; from pathlib import Path; from cryopipe.io.public_archive.download import download; "
        "download(sys.argv[1], Path(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, f"{archive.url}/a%20b.tif", str(path)])
    part = path.with_name("a.tif.part")
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size == 2_000_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists()
    assert fetch(archive, path) == len(DATA)
    assert path.read_bytes() == DATA
    assert archive.ranges(NAME)[-1] == "bytes=2000000-"


def test_two_that_receive_one_file_at_a_time_both_have_it_whole(archive: Archive, tmp_path: Path) -> None:
    archive.hang[NAME] = 1_000_000  # the first holds the file until the server lets go
    with ThreadPoolExecutor(2) as pool:
        sizes = [pool.submit(fetch, archive, tmp_path / "a.tif") for _ in range(2)]
        while sum(asked == NAME for method, asked, _ in archive.requests if method == "HEAD") < 2:
            time.sleep(0.01)
        time.sleep(0.3)
        assert archive.ranges(NAME) == [None]  # the second waits
        archive.released.set()
        assert [size.result(timeout=300) for size in sizes] == [len(DATA)] * 2
    assert (tmp_path / "a.tif").read_bytes() == DATA
    assert not (tmp_path / "a.tif.part").exists()


@pytest.mark.parametrize("left", [DATA, DATA + b"more"], ids=["whole", "too long"])
def test_what_an_earlier_download_left_is_used_if_it_can_be(archive: Archive, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "a.tif.part").write_bytes(left)
    assert fetch(archive, tmp_path / "a.tif") == len(DATA)
    assert (tmp_path / "a.tif").read_bytes() == DATA
    assert len(archive.ranges(NAME)) == (left != DATA)


def test_a_full_disk_is_no_fault_of_the_file_and_stops_everything(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(part: Path, stream: object, block: bytes) -> None:
        raise module._unwritable(part, OSError(28, "No space left on device"))

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(CryopipeError, match=r"a\.tif\.part: cannot be written \(No space left on device\)") as stop:
        fetch(archive, tmp_path / "a.tif")
    assert not isinstance(stop.value, InputError)


def test_a_disk_that_loses_bytes_at_the_end_is_no_fault_of_the_file_and_the_bytes_are_not_trusted_again(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def over_quota(descriptor: int) -> None:
        raise OSError(122, "Disk quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", over_quota)
        with pytest.raises(CryopipeError, match=r"a\.tif\.part: cannot be written \(Disk quota exceeded\)") as stop:
            fetch(archive, tmp_path / "out" / "a.tif")
    assert not isinstance(stop.value, InputError)
    assert archive.ranges(NAME) == [None]
    fetch(archive, tmp_path / "out" / "a.tif")
    assert archive.ranges(NAME) == [None, None]  # from the start
    assert (tmp_path / "out" / "a.tif").read_bytes() == DATA
    assert left_beside(tmp_path / "out" / "a.tif") == []


def test_a_folder_in_the_files_place_stops_everything_and_costs_no_second_transfer(
    archive: Archive, tmp_path: Path
) -> None:
    (tmp_path / "a.tif").mkdir()
    with pytest.raises(CryopipeError, match=r"a\.tif: cannot be written \(Is a directory\)") as stop:
        fetch(archive, tmp_path / "a.tif")
    assert not isinstance(stop.value, InputError)
    (tmp_path / "a.tif").rmdir()
    fetch(archive, tmp_path / "a.tif")
    assert (tmp_path / "a.tif").read_bytes() == DATA
    assert archive.ranges(NAME) == [None]


def test_a_kept_file_that_cannot_be_replaced_is_named(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tif").write_bytes(b"other")

    def forbidden(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", forbidden)
    with pytest.raises(CryopipeError, match=r"a\.tif: cannot be written \(Permission denied\)") as stop:
        fetch(archive, tmp_path / "a.tif")
    assert not isinstance(stop.value, InputError)
    assert archive.ranges(NAME) == []


def test_the_server_of_these_tests_says_nothing_of_a_client_that_hangs_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.tif").write_bytes(bytes(20_000_000))  # more than the sockets hold
    with serve(tmp_path) as archive:
        host, port = archive.url.removeprefix("http://").split(":")
        before = threading.active_count()
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /a.tif HTTP/1.1\r\nHost: here\r\n\r\n")
            client.recv(100)
        deadline = time.monotonic() + 5
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "Traceback" not in capfd.readouterr().err


def test_other_addresses_than_those_of_the_web_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'file:///etc/passwd' is not an http address"):
        download("file:///etc/passwd", tmp_path / "x")
    with pytest.raises(InputError, match="is not an http address"):
        fetch_page("ftp://ftp.ebi.ac.uk/")


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9/x: no answer in 2 attempts.*no connection"):
        fetch_page("http://127.0.0.1:9/x", attempts=2, wait_s=0.01)
