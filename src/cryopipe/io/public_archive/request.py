"""One request to a server over HTTP(S): its answer, or the reason why there is none and whether another may succeed."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from typing import Protocol

from cryopipe.errors import InputError

#: Bytes that are read at a time. A choice between frequent signs of progress and few calls.
BLOCK = 1 << 20
#: Answers below 500 after which the same request may succeed: timeout, too early, too many requests.
_PASSING = frozenset({408, 425, 429})
#: Refusals of a HEAD that say nothing about the file itself.
_NO_HEAD = frozenset({403, 405, 501})
#: Longest pause between attempts: a choice between sparing a server that is down and waiting no longer than needed.
LONGEST_WAIT_S = 120.0


class TryAgain(Exception):
    """An attempt failed in a way that another may not."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Response(Protocol):
    """What is used of an answer."""

    status: int
    headers: http.client.HTTPMessage

    def read1(self, amount: int) -> bytes:
        """Return up to ``amount`` bytes, none at the end."""
        ...

    def __enter__(self) -> Response: ...
    def __exit__(self, *arguments: object) -> None: ...


def fetch_page(url: str, *, attempts: int = 5, wait_s: float = 2.0, timeout_s: float = 60.0) -> str:
    """Return the text at ``url`` (a directory's index).

    Parameters
    ----------
    url : str
        Address, http or https.
    attempts : int
        Most requests.
    wait_s : float
        Pause after the first failure, s; it doubles with every further one, up to two minutes.
    timeout_s : float
        Longest silence of the server, s.

    Raises
    ------
    InputError
        The page was not received; the message gives the reason.
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
    raise InputError(f"{url}: no answer in {attempts} attempts; the last ended so: {reason}.")


def check_address(url: str) -> None:
    """Refuse what is not an http(s) address: file: and ftp: would be opened otherwise."""
    if not re.match(r"https?://[^/\s]+", url):
        raise InputError(f"{url!r} is no address that starts with http:// or https://.")


def ask(url: str, headers: dict[str, str], method: str, timeout_s: float) -> Response:
    """Send one request and return the answer, its contents not yet read.

    Parameters
    ----------
    url : str
        Address, http or https.
    headers : dict
        Beside the usual ones.
    method : str
        ``GET`` or ``HEAD``.
    timeout_s : float
        Longest silence of the server, s.

    Raises
    ------
    InputError
        The server refuses it for good (404 ...).
    TryAgain
        No answer, or a refusal that may pass.
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
    """An answer without contents: of a range behind the end of the file, or of a server that knows no HEAD."""

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
    """Return where the answer's bytes start and how many the whole file has (None where the server does not say)."""
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if found is None:
            raise TryAgain(f"the range {response.headers.get('Content-Range')!r} of the answer is not understood")
        return int(found[1]), None if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def size_at(url: str, timeout_s: float) -> int | None:
    """Return the size of the file at ``url`` in bytes; None where the server does not say."""
    with ask(url, {}, "HEAD", timeout_s) as response:
        return extent(response)[1]
