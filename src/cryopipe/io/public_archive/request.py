"""One request to a server over HTTP(S): its answer, or the reason of the failure and whether another request may succeed."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from typing import Protocol

from cryopipe.errors import InputError

#: Number of bytes read at a time. A choice between frequent signs of progress and few calls.
BLOCK = 1 << 20
#: Status codes below 500 after which the same request may succeed: timeout, too early, too many requests.
_PASSING = frozenset({408, 425, 429})
#: Status codes that refuse a HEAD request but do not concern the file itself.
_NO_HEAD = frozenset({403, 405, 501})
#: Longest pause between attempts: a choice between sparing a server that is down and waiting no longer than needed.
LONGEST_WAIT_S = 120.0


class TryAgain(Exception):
    """An attempt failed, but another one may succeed."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Response(Protocol):
    """The parts of an answer that are used."""

    status: int
    headers: http.client.HTTPMessage

    def read1(self, amount: int) -> bytes:
        """Return up to ``amount`` bytes, none at the end."""
        ...

    def __enter__(self) -> Response: ...
    def __exit__(self, *arguments: object) -> None: ...


def fetch_page(url: str, *, attempts: int = 5, wait_s: float = 2.0, timeout_s: float = 60.0) -> str:
    """Return the text at ``url`` (the index of a directory).

    Parameters
    ----------
    url : str
        Address, http or https.
    attempts : int
        Largest number of requests.
    wait_s : float
        Pause after the first failure, s. It doubles with every further one, up to two minutes.
    timeout_s : float
        A request ends if the server sends nothing for this time, s.

    Raises
    ------
    InputError
        The page was not received. The message has the reason.
    """
    check_address(url)
    for failed in range(1, attempts + 1):
        try:
            with ask(url, {}, "GET", timeout_s) as response:
                return b"".join(iter(lambda: response.read1(BLOCK), b"")).decode("utf-8", "replace")
        except (TryAgain, OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
        if failed < attempts:
            time.sleep(min(wait_s * 2 ** (failed - 1), LONGEST_WAIT_S))
    raise InputError(f"{url}: no answer in {attempts} attempts; reason of the last failure: {reason}. Try again later.")


def check_address(url: str) -> None:
    """Refuse addresses other than http(s), since file: and ftp: would be opened, too."""
    if not re.match(r"https?://[^/\s]+", url):
        raise InputError(f"{url!r} is not an http address. Give one that starts with http:// or https://.")


def ask(url: str, headers: dict[str, str], method: str, timeout_s: float) -> Response:
    """Send one request and return the answer, its contents not yet read.

    Parameters
    ----------
    url : str
        Address, http or https.
    headers : dict
        Headers in addition to the usual ones.
    method : str
        ``GET`` or ``HEAD``.
    timeout_s : float
        A request ends if the server sends nothing for this time, s.

    Raises
    ------
    InputError
        The server refuses the file (404 ...).
    TryAgain
        There was no answer, or a later request may be accepted.
    """
    request = urllib.request.Request(
        url, headers={"User-Agent": "cryopipe", "Accept-Encoding": "identity", **headers}, method=method
    )
    try:
        response: Response = urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 or (method == "HEAD" and error.code in _NO_HEAD):
            return _Nothing(error.code)
        if error.code < 500 and error.code not in _PASSING:
            raise InputError(f"{url}: the server answers {error.code} {error.reason}.") from None
        after = error.headers.get("Retry-After", "")
        raise TryAgain(
            f"the server answers {error.code} {error.reason}", float(after) if after.isdigit() else 0.0
        ) from None
    except urllib.error.URLError as error:
        raise TryAgain(f"no connection ({error.reason})") from None
    return response


class _Nothing:
    """An empty answer: to a range beyond the end of the file, or from a server without HEAD."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.headers = http.client.HTTPMessage()

    def read1(self, amount: int) -> bytes:
        return b""

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *arguments: object) -> None:
        pass


def extent(response: Response) -> tuple[int, int | None]:
    """Return at which byte the answer starts, and the size of the whole file (None if the server does not state it)."""
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if found is None:
            raise TryAgain(f"the answer has the unknown range {response.headers.get('Content-Range')!r}")
        return int(found[1]), None if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def size_at(url: str, timeout_s: float) -> int | None:
    """Return the size of the file at ``url`` in bytes, or None if the server does not state it."""
    with ask(url, {}, "HEAD", timeout_s) as response:
        return extent(response)[1]
