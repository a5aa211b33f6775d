"""The directories of a TIFF file, walked strictly: a cut-off file is an error, not a shorter movie.

tifffile reads the frames, but stops at the first directory behind the end of the file with a line in its log, so that half a
movie has half the frames (``tests/io/test_movies.py``). So the chain is counted here first.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from cryopipe.errors import InputError


def count_directories(path: Path) -> int:
    """Return the number of directories (frames) of a TIFF or BigTIFF file by walking their chain.

    Raises
    ------
    InputError
        The file is missing, empty, no TIFF, or the chain leads outside of it (a cut-off file).
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            return _walk(stream, size, path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such movie.") from None
    except struct.error:
        raise InputError(f"{path}: cut off inside a TIFF directory. Copy it again.") from None


def _walk(stream: BinaryIO, size: int, path: Path) -> int:
    if size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes). Copy it again.")
    mark = stream.read(4)
    order = {b"II": "<", b"MM": ">"}.get(mark[:2])
    version = struct.unpack(f"{order}H", mark[2:])[0] if order and len(mark) == 4 else 0
    if order is None or version not in (42, 43):
        raise InputError(f"{path}: not a TIFF file: it starts with {mark!r}.")
    big = version == 43
    pointer, number, entry = (f"{order}Q", f"{order}Q", 20) if big else (f"{order}I", f"{order}H", 12)
    stream.seek(8 if big else 4)
    offset = _number(stream, pointer)
    seen: set[int] = set()
    while offset:
        if offset >= size or offset in seen:
            raise InputError(f"{path}: cut off or damaged: TIFF directory {len(seen) + 1} lies outside of the file.")
        seen.add(offset)
        stream.seek(offset)
        entries = _number(stream, number)
        stream.seek(offset + struct.calcsize(number) + entries * entry)
        offset = _number(stream, pointer)
    if not seen:
        raise InputError(f"{path}: a TIFF file without any image.")
    return len(seen)


def _number(stream: BinaryIO, form: str) -> int:
    return int(struct.unpack(form, stream.read(struct.calcsize(form)))[0])
