"""Files of a public archive by name: ``empiar:10248/data/*.tif``, listed from HTML indices or from a user's list.

A list has one line per file, in the layout of ``md5sum`` and ``sha256sum``: checksum, size in bytes, and path inside the folder
of the entry. Checksum and size are optional. Lines that start with ``#`` are comments.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import quote, unquote, urljoin, urlsplit

from cryopipe.errors import InputError

#: EMPIAR's public folder of all released entries.
EMPIAR_URL = "https://ftp.ebi.ac.uk/empiar/world_availability"
_GRAMMAR = re.compile(r"empiar:(\d{4,6})/(.+)")
_MOST_FOLDERS = 2000
_DEEPEST = 16


@dataclass(frozen=True)
class ArchivePattern:
    """An entry of the archive and a pattern of paths in it.

    Attributes
    ----------
    entry : str
        Number of the entry.
    pattern : str
        Path inside its folder. ``* ? [...]`` match parts of a name, ``**`` matches any number of folders.
    """

    entry: str
    pattern: str

    @property
    def parts(self) -> list[str]:
        """The pattern, folder by folder."""
        return self.pattern.split("/")

    def name(self, path: str) -> str:
        """Return the name of a file of this entry in a manifest: ``empiar:<entry>/<path>``."""
        return f"empiar:{self.entry}/{path}"


@dataclass(frozen=True)
class ArchiveFile:
    """A file of an entry: path inside its folder, and size in bytes and checksum if a list has them."""

    path: str
    size: int | None = None
    checksum: str | None = None

    def line(self) -> str:
        """Return the line of a list for this file."""
        return "  ".join([*filter(None, [self.checksum]), *([] if self.size is None else [str(self.size)]), self.path])


def is_remote(name: str) -> bool:
    """Tell whether ``name`` names files in an archive."""
    return name.startswith("empiar:")


def parse_pattern(name: str) -> ArchivePattern:
    """Read ``empiar:<entry>/<path pattern>``.

    Raises
    ------
    InputError
        The name does not have this form, or it leaves the folder of the entry.
    """
    found = _GRAMMAR.fullmatch(name)
    if found is None or any(part in ("", ".", "..") for part in found[2].split("/")):
        raise InputError(
            f"{name!r} does not name archived files. Write empiar:<number>/<path pattern>, such as empiar:10248/data/*.tif."
        )
    return ArchivePattern(found[1], found[2])


def address(base_url: str, name: str) -> str:
    """Return the address of the archived file ``name`` (``empiar:<entry>/<path>``)."""
    file = parse_pattern(name)
    return f"{base_url.rstrip('/')}/{file.entry}/{quote(file.pattern)}"


def parse_list(text: str, source: str) -> list[ArchiveFile]:
    """Read a list of files.

    Raises
    ------
    InputError
        A line has no path, or one that leaves the folder, or a path occurs twice. The message names ``source`` and the line.
    """
    files: dict[str, ArchiveFile] = {}
    for number, line in enumerate(text.splitlines(), 1):
        rest = line.strip()
        if not rest or rest.startswith("#"):
            continue
        checksum = size = None
        if found := re.match(r"([0-9a-fA-F]{64}|[0-9a-fA-F]{32})\s+", rest):
            checksum, rest = found[1].lower(), rest[found.end() :]
        if found := re.match(r"(\d+)\s+", rest):
            size, rest = int(found[1]), rest[found.end() :]
        path = rest.removeprefix("*").removeprefix("./")
        if any(part in ("", ".", "..") for part in path.split("/")):
            raise InputError(
                f"{source}, line {number}: {rest!r} is not a path inside the folder of the entry. Correct the list."
            )
        if path in files:
            raise InputError(f"{source}, line {number}: {path} occurs twice in the list. Remove one of the lines.")
        files[path] = ArchiveFile(path, size, checksum)
    return list(files.values())


def matches(path: str, parts: list[str]) -> bool:
    """Tell whether ``path`` matches the pattern ``parts``, folder by folder; upper and lower case differ."""
    return _matches(path.split("/"), parts)


def _matches(names: list[str], parts: list[str]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        return _matches(names, parts[1:]) or (bool(names) and _matches(names[1:], parts))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _matches(names[1:], parts[1:])


def list_archive(pattern: ArchivePattern, base_url: str, page: Callable[[str], str]) -> list[ArchiveFile]:
    """List the matching files by reading the HTML indices of the folders that may contain some.

    Parameters
    ----------
    pattern : ArchivePattern
        Entry and pattern of the files.
    base_url : str
        Address of the folder of all entries.
    page : callable
        Returns the text at an address.

    Returns
    -------
    list of ArchiveFile
        Sorted, without sizes (which indices round) and without checksums.

    Raises
    ------
    InputError
        There are too many folders to look through.
    """
    root = f"{base_url.rstrip('/')}/{pattern.entry}/"
    found: set[str] = set()
    waiting: list[tuple[str, ...]] = [()]
    seen: set[tuple[str, ...]] = set(waiting)
    while waiting:
        folder = waiting.pop()
        if len(seen) > _MOST_FOLDERS or len(folder) > _DEEPEST:
            raise InputError(f"{root}: {pattern.pattern} leads through too many folders. Name them more closely.")
        literal = _only_way(folder, pattern.parts)
        names = [literal] if literal else links(page(root + quote("".join(f"{f}/" for f in folder))), root, folder)
        for name in names:
            path = (*folder, name.rstrip("/"))
            if name.endswith("/"):
                if path not in seen and _may_hold(path, pattern.parts):
                    seen.add(path)
                    waiting.append(path)
            elif _matches(list(path), pattern.parts):
                found.add("/".join(path))
    return [ArchiveFile(path) for path in sorted(found)]


def _only_way(folder: tuple[str, ...], parts: list[str]) -> str | None:
    """Return the only name that the pattern allows in ``folder``, or None if an index must be read."""
    depth = len(folder)
    if "**" in parts[: depth + 1] or re.search(r"[*?\[]", parts[depth]):
        return None
    return parts[depth] if depth == len(parts) - 1 else parts[depth] + "/"


def _may_hold(folder: tuple[str, ...], parts: list[str]) -> bool:
    """Tell whether a file below ``folder`` can match."""
    for name, part in zip(folder, parts, strict=False):
        if part == "**":
            return True
        if not fnmatch.fnmatchcase(name, part):
            return False
    return len(folder) < len(parts)


def links(html: str, root: str, folder: tuple[str, ...]) -> list[str]:
    """Return the names of files and folders to which an index links directly. Folders end with a slash."""
    here = root + quote("".join(f"{f}/" for f in folder))
    base = urlsplit(here).path
    parser = _Links()
    parser.feed(html)
    names = []
    for link in parser.found:
        target = urlsplit(urljoin(here, link))
        # column headers link to this folder in another order (?C=N), and the first line links to the folder above
        if target.netloc != urlsplit(here).netloc or not target.path.startswith(base):
            continue
        name = unquote(target.path[len(base) :])
        if name and "/" not in name.rstrip("/") and name.rstrip("/") not in ("", ".", ".."):
            names.append(name)
    return names


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for key, value in attrs if key == "href" and value]
