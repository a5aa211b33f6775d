"""The checkpoint of an iterative method: one file, written atomically. Only the run that wrote it reads it back.

A state is a dataclass. Its fields may be arrays, numbers, texts, further dataclasses, tuples of these, and lists of
dataclasses of numbers (`cryopipe.iteration.history`). If the file is missing or damaged, or has another state or
fingerprint, the method starts from the beginning.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from cryopipe.config.declaration.base import Params
from cryopipe.context import Context
from cryopipe.fingerprint import fingerprint
from cryopipe.io.atomic import atomic_path
from cryopipe.io.mrc import parse_image_name
from cryopipe.io.star import StarTable
from cryopipe.iteration.history import rows_of_array, rows_to_array

State = TypeVar("State")
_FINGERPRINT = "fingerprint"


@dataclass(frozen=True)
class Checkpoint(Generic[State]):
    """Where the state of a method is kept between two iterations.

    Attributes
    ----------
    path : Path
        An ``.npz`` file.
    kind : type
        The dataclass of the state.
    fingerprint : str
        Fingerprint of everything that determines the result: parameters, seed, particles, initial map.
    """

    path: Path
    kind: type[State]
    fingerprint: str

    def save(self, state: State) -> None:
        """Write the state in place of the previous one."""
        arrays = {_FINGERPRINT: np.array(self.fingerprint)}
        _encode("state", state, arrays)
        with atomic_path(self.path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]

    def load(self) -> State | None:
        """Return the state, or None if there is none that this run could have written."""
        try:
            with np.load(self.path, allow_pickle=False) as kept:
                if str(kept[_FINGERPRINT]) != self.fingerprint:
                    return None
                state: State = _decode("state", self.kind, kept)
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
            return None
        return state

    def remove(self) -> None:
        """Remove the state of a run that has written its results, so that the next run starts from the beginning."""
        self.path.unlink(missing_ok=True)


def run_fingerprint(context: Context, params: Params, table: StarTable, *, files: Sequence[str | Path] = ()) -> str:
    """Return the digest of all that determines an iterative method's result (`cryopipe.fingerprint`).

    Parameters
    ----------
    context : Context
        Step, code and seed.
    params : Params
        Parameters of the step.
    table : StarTable
        Particles. Their stacks enter with name, size and time of last change, because reading them would take as long
        as an iteration.
    files : sequence of path
        Further files, which enter with their content.
    """
    stacks = sorted({str(parse_image_name(name)[1]) for name in table.rows["rlnImageName"]})
    states = {name: [(state := Path(name).stat()).st_size, state.st_mtime_ns] for name in stacks}
    return fingerprint(context, params, table, states, files=map(Path, files))


def _encode(name: str, value: Any, arrays: dict[str, Any]) -> None:
    if is_dataclass(value):
        for field in fields(value):
            _encode(f"{name}.{field.name}", getattr(value, field.name), arrays)
    elif isinstance(value, tuple):
        for number, part in enumerate(value):
            _encode(f"{name}.{number}", part, arrays)
    elif isinstance(value, list):
        arrays[name] = rows_to_array(value)
    else:
        arrays[name] = np.asarray(value)


def _decode(name: str, kind: Any, kept: Mapping[str, Any]) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{field.name: _decode(f"{name}.{field.name}", hints[field.name], kept) for field in fields(kind)})
    if origin is tuple:
        return tuple(_decode(f"{name}.{number}", part, kept) for number, part in enumerate(arguments))
    if origin is list:
        return rows_of_array(arguments[0], kept[name])
    value = kept[name]
    return value if kind is np.ndarray or origin is np.ndarray else kind(value.item())
