"""Receive a file over HTTP(S) so that it is whole or not there: resumed, counted, compared with its checksum, renamed.

Bytes go to ``<name>.part``; a transfer that broke off, or a program that was killed, goes on at its end by an HTTP range
(RFC 9110, sections 13 and 14). ``<name>.part.tag`` keeps the server's validator, so that a file that changed in between is
not patched together from two. A server that ignores ranges costs the transfer from the start, nothing else.
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

#: An attempt that brings this many bytes does not count: a long transfer may break off more often than a short one.
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
    """Make ``path`` the file at ``url`` and return its size in bytes; one that is there and checks out is kept.

    Parameters
    ----------
    url : str
        Address, http or https. Proxies are taken from the usual environment variables.
    path : Path
        Where the file goes, by renaming a complete ``<path>.part``.
    size : int, optional
        Bytes that it must have. Without it the server is asked first (HEAD), and its answer must agree with what it sends.
    checksum : str, optional
        MD5 (32 hexadecimal digits) or SHA-256 (64) that it must have. A file with another one is received anew.
    attempts : int
        Attempts without much progress before it is given up.
    wait_s : float
        Pause after the first failed attempt, seconds; it doubles each time, up to two minutes.
    timeout_s : float
        Silence of the server that ends an attempt, seconds.
    progress : callable
        Called with (bytes that are there, bytes in all or None) after each block.

    Raises
    ------
    InputError
        The server refuses it for good (404 ...), or no attempt gave the whole file; the message has the last reason.
    CryopipeError
        It cannot be written here (disk full, no permission): no fault of this file, so nothing goes on.
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
            raise InputError(f"{url}: not received in {attempts} attempts; the last ended so: {reason}.")
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
        # a job that outlived the kill of its workflow may still be writing
        fcntl.flock(stream, fcntl.LOCK_EX)
        if not part.exists() or os.fstat(stream.fileno()).st_ino != part.stat().st_ino:
            raise TryAgain("another process received it meanwhile")
        total = _receive(url, part, stream, expected, timeout_s, progress)
        if checksum is not None and (found := _digest(part, checksum)) != checksum.lower():
            _discard(stream)
            raise TryAgain(f"its {_HASHES[len(checksum)]} is {found} instead of {checksum.lower()}")
        _settle(stream, part, path)
    return total


def _settle(stream: IO[bytes], part: Path, path: Path) -> None:
    """Bring the whole file to the disk and under its name.

    Raises
    ------
    CryopipeError
        The disk does not take it.
    """
    try:
        os.fsync(stream.fileno())
    except OSError as error:
        # some bytes are lost (quotas and network disks tell only now), and a second call would not say so again
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
    """Append what is missing and return the size of the whole."""
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
            raise TryAgain(f"the server sends bytes from {start} although those from {have} were asked for")
        if expected is not None and total is not None and total != expected:
            _discard(stream)
            raise TryAgain(f"the server sends {total} bytes, but it should have {expected}")
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
    # weak validators do not promise equal bytes
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
