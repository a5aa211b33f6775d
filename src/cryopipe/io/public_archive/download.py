"""Receive a file over HTTP(S), so that it is complete or does not exist: resumed, counted, checked and renamed.

Bytes go to ``<name>.part``. If the transfer breaks off or the program is killed, the next try continues at its end by an HTTP
range (RFC 9110, sections 13 and 14). ``<name>.part.tag`` keeps the validator of the server, so that parts of two versions of a
file are never joined. If a server ignores ranges, the transfer starts again from the beginning.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from cryopipe.errors import CryopipeError, InputError
from cryopipe.io.public_archive.request import (
    BLOCK,
    LONGEST_WAIT_S,
    Response,
    TryAgain,
    ask,
    check_address,
    extent,
    size_at,
)

Progress = Callable[[int, int | None], None]

#: An attempt that receives this many bytes does not count, because a long transfer breaks off more often than a short one.
_WORTHWHILE = 64 << 20
_HASHES = {32: "md5", 64: "sha256"}


def download(
    url: str,
    path: Path,
    *,
    size: int | None = None,
    checksum: str | None = None,
    attempts: int = 5,
    wait_s: float = 2.0,
    timeout_s: float = 60.0,
    progress: Progress = lambda have, total: None,
) -> int:
    """Download ``url`` to ``path`` and return its size in bytes. A file that exists and passes the checks is kept.

    Parameters
    ----------
    url : str
        Address, http or https. Proxies are taken from the usual environment variables.
    path : Path
        The file. A complete ``<path>.part`` is renamed to it.
    size : int, optional
        Bytes that it must have. Without it the server is asked first (HEAD), and its answer must agree with what it sends.
    checksum : str, optional
        MD5 (32 hexadecimal digits) or SHA-256 (64) that it must have. If it differs, the file is downloaded again.
    attempts : int
        Number of attempts without much progress after which the download fails.
    wait_s : float
        Pause after the first failed attempt, seconds. It doubles each time, up to two minutes.
    timeout_s : float
        An attempt ends if the server sends nothing for this time, seconds.
    progress : callable
        Called with (bytes received, total bytes or None) after each block.

    Raises
    ------
    InputError
        The server refuses the file (404 ...), or no attempt gave the whole file. The message has the last reason.
    CryopipeError
        The file cannot be written (disk full, no permission). This is not a fault of the file, so the step stops.
    """
    check_address(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    failed = 0
    while True:
        before = _bytes_there(path)
        try:
            return _attempt(url, path, size, checksum, timeout_s, progress)
        except (TryAgain, OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            pause = error.wait_s if isinstance(error, TryAgain) else 0.0
        failed = 1 if _bytes_there(path) - before >= _WORTHWHILE else failed + 1
        if failed >= attempts:
            raise InputError(
                f"{url}: not received in {attempts} attempts; reason of the last failure: {reason}. Try again later."
            )
        time.sleep(min(max(pause, wait_s * 2 ** (failed - 1)), LONGEST_WAIT_S))


def _attempt(url: str, path: Path, size: int | None, checksum: str | None, timeout_s: float, progress: Progress) -> int:
    expected = size if size is not None else size_at(url, timeout_s)
    if path.is_file():
        if _fits(path, expected, checksum):
            return path.stat().st_size
        _remove(path)
    part = path.with_name(path.name + ".part")
    try:
        stream = part.open("ab+")
    except OSError as error:
        raise _unwritable(part, error) from error
    with stream:
        # a job that still runs although its workflow was killed may be writing
        fcntl.flock(stream, fcntl.LOCK_EX)
        if not part.exists() or os.fstat(stream.fileno()).st_ino != part.stat().st_ino:
            raise TryAgain("another process downloaded it at the same time")
        total = _receive(url, part, stream, expected, timeout_s, progress)
        if checksum is not None and (found := _digest(part, checksum)) != checksum.lower():
            _discard(stream)
            raise TryAgain(f"its {_HASHES[len(checksum)]} is {found} instead of {checksum.lower()}")
        _settle(stream, part, path)
    return total


def _settle(stream: IO[bytes], part: Path, path: Path) -> None:
    """Flush the complete file to the disk and rename it.

    Raises
    ------
    CryopipeError
        The file cannot be written to the disk.
    """
    try:
        os.fsync(stream.fileno())
    except OSError as error:
        # some bytes are lost (quotas and network disks report it only now), and a second call would not report it again
        _remove(part)
        raise _unwritable(part, error) from error
    try:
        part.replace(path)
        _tag(part).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def _receive(
    url: str, part: Path, stream: IO[bytes], expected: int | None, timeout_s: float, progress: Progress
) -> int:
    """Append the missing bytes and return the size of the whole file."""
    have = stream.seek(0, os.SEEK_END)
    if expected is not None and have > expected:
        _discard(stream)
        have = 0
    if have and have == expected:
        return have
    wanted = {"Range": f"bytes={have}-"} if have else {}
    if have and _tag(part).is_file():
        wanted["If-Range"] = _tag(part).read_text()
    with ask(url, wanted, "GET", timeout_s) as response:
        start, total = extent(response)
        if start not in (0, have) or response.status == 416:
            _discard(stream)
            raise TryAgain(f"the server sends bytes from {start}, but those from {have} were requested")
        if expected is not None and total is not None and total != expected:
            _discard(stream)
            raise TryAgain(f"the server sends {total} bytes, but the file should have {expected}")
        if start == 0:
            _discard(stream)
            _keep_tag(part, response)
            have = 0
        while block := response.read1(BLOCK):
            _write(part, stream, block)
            have += len(block)
            progress(have, total)
    if total is not None and have != total:
        raise TryAgain(f"the connection ended after {have} of {total} bytes")
    return have


def _fits(path: Path, size: int | None, checksum: str | None) -> bool:
    if size is not None and path.stat().st_size != size:
        return False
    return checksum is None or _digest(path, checksum) == checksum.lower()


def _digest(path: Path, like: str) -> str:
    content = hashlib.new(_HASHES[len(like)], usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            content.update(block)
    return content.hexdigest()


def _bytes_there(path: Path) -> int:
    part = path.with_name(path.name + ".part")
    return part.stat().st_size if part.is_file() else 0


def _tag(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _keep_tag(part: Path, response: Response) -> None:
    tag = response.headers.get("ETag", "")
    # weak validators do not guarantee equal bytes
    tag = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
    try:
        _tag(part).write_text(tag) if tag else _tag(part).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(part, error) from error


def _discard(stream: IO[bytes]) -> None:
    stream.seek(0)
    stream.truncate()


def _write(part: Path, stream: IO[bytes], block: bytes) -> None:
    try:
        stream.write(block)
        stream.flush()
    except OSError as error:
        raise _unwritable(part, error) from error


def _unwritable(path: Path, error: OSError) -> CryopipeError:
    return CryopipeError(
        f"{path}: cannot be written ({error.strerror}). Make room or choose another folder, then run again."
    )
