"""The directories of a TIFF file, followed strictly: a cut-off file is an error, not a shorter movie.

tifffile reads the frames. But at the first directory beyond the end of the file it stops with only a line in its log, so half
of a file would be a movie with half the frames (``tests/io/test_movies.py``). So the chain is counted here first.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from cryopipe.errors import InputError


def count_directories(path: Path) -> int:
    """Return the number of directories (frames) of a TIFF or BigTIFF file by following their chain.

    Raises
    ------
    InputError
        The file is missing, empty or not a TIFF file, or the chain leads outside of it (a cut-off file).
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            return _walk(stream, size, path)
    except FileNotFoundError:
        raise InputError(f"{path}: the movie does not exist. Correct the path.") from None
    except struct.error:
        raise InputError(f"{path}: the file is cut off inside a TIFF directory. Copy it again.") from None


def _walk(stream: BinaryIO, size: int, path: Path) -> int:
    if size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes). Copy it again.")
    mark = stream.read(4)
    order = {b"II": "<", b"MM": ">"}.get(mark[:2])
    version = struct.unpack(f"{order}H", mark[2:])[0] if order and len(mark) == 4 else 0
    if order is None or version not in (42, 43):
        raise InputError(f"{path}: this is not a TIFF file: it starts with {mark!r}. Correct its name or convert it.")
    big = version == 43
    pointer, number, entry = (f"{order}Q", f"{order}Q", 20) if big else (f"{order}I", f"{order}H", 12)
    stream.seek(8 if big else 4)
    offset = _number(stream, pointer)
    seen: set[int] = set()
    while offset:
        if offset >= size or offset in seen:
            raise InputError(
                f"{path}: the file is cut off or damaged: TIFF directory {len(seen) + 1} is outside of it. Copy it again."
            )
        seen.add(offset)
        stream.seek(offset)
        entries = _number(stream, number)
        stream.seek(offset + struct.calcsize(number) + entries * entry)
        offset = _number(stream, pointer)
    if not seen:
        raise InputError(f"{path}: the TIFF file has no image. Copy it again.")
    return len(seen)


def _number(stream: BinaryIO, form: str) -> int:
    return int(struct.unpack(form, stream.read(struct.calcsize(form)))[0])
