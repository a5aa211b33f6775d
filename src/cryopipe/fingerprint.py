"""The fingerprint of everything that a kept result depends on. Items and checkpoints follow the same rule.

A result that is kept on disk (the row of an item, the checkpoint of an iteration) may be used again only if everything
that made it is the same: the parameters, the facts that it was made from (a row with its optics), the content of every
file that was read, the code and, if random numbers were drawn, the seed. `cryopipe.items.process_items` applies the
rule to items. A step that keeps a checkpoint calls :func:`fingerprint`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel

from cryopipe.context import Context

#: Of files above this size only the two ends are read, because reading whole movies would take longer than many steps. 64
#: MiB are a micrograph of 4096 x 4096 pixels in float32, which takes some 0.1 s.
WHOLE_FILE_LIMIT = 64 << 20
#: How much of each end of a large file is read. This includes the headers of all formats.
END = 1 << 20
_BLOCK = 8 << 20


def fingerprint(
    context: Context,
    params: BaseModel,
    *facts: object,
    files: Iterable[Path] = (),
    ignore: Iterable[str] = (),
    seeded: bool = True,
) -> str:
    """Return the digest of everything that a result depends on.

    Parameters
    ----------
    context : Context
        Step, code and, if ``seeded``, seed.
    params : BaseModel
        All parameters of the step.
    *facts
        What the result is made from besides files: rows joined with their optics, tables, arrays, numbers, text. Of a path
        among them only the name counts.
    files : iterable of Path
        All files that are read for the result. Their content counts, and whether they exist.
    ignore : iterable of str
        Names of parameters that do not change the result (such as how often a download is tried).
    seeded : bool
        Whether random numbers are drawn.

    Raises
    ------
    TypeError
        A fact has a type of unknown content.
    """
    known = {
        "step": context.step,
        "code": context.code,
        "seed": context.seed if seeded else None,
        "params": params.model_dump(mode="json", exclude=set(ignore)),
        "facts": facts,
        "files": {str(path): file_digest(path) for path in sorted({Path(path) for path in files})},
    }
    text = json.dumps(_plain(known), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str | None:
    """Return a digest of the content of a file, or None if it cannot be read.

    It is ``sha256:<hex>``. For a file above 64 MiB it is ``sha256-ends:<size>:<hex>@<time>``, over its first and last
    MiB, where the time of the last change (ns) represents the rest. A process computes each digest once.
    """
    try:
        state = Path(path).stat()
        return _content(str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
    except OSError:
        return None


@lru_cache(maxsize=1 << 16)
def _content(path: str, size: int, changed_ns: int, *_state: int) -> str:
    content = hashlib.sha256()
    with Path(path).open("rb") as stream:
        if size <= WHOLE_FILE_LIMIT:
            while block := stream.read(_BLOCK):
                content.update(block)
            return f"sha256:{content.hexdigest()}"
        content.update(stream.read(END))
        stream.seek(size - END)
        content.update(stream.read(END))
    return f"sha256-ends:{size}:{content.hexdigest()}@{changed_ns}"


def _plain(value: Any) -> Any:
    """Return ``value`` in a form that JSON can write, the same for the same content."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, np.ndarray):
        content = np.ascontiguousarray(value)
        return [content.dtype.str, content.shape, hashlib.sha256(content.data).hexdigest()]
    if isinstance(value, pd.DataFrame):
        # faster than cell by cell, since a table may have a million particles
        cells = pd.util.hash_pandas_object(value, index=False).to_numpy()
        return [list(value.columns), _plain(cells)]
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(_plain(part) for part in value)
    if isinstance(value, Sequence):
        return [_plain(part) for part in value]
    raise TypeError(
        f"{type(value).__name__} cannot be part of a fingerprint. Give its content as numbers, text or tables."
    )
