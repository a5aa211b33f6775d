"""The blocks of a STAR file as data frames: the text of the format, nothing about its meaning.

Written are RELION's two forms, ``loop_`` tables and simple name-value lists, each behind a ``# version`` comment as
RELION's own writer does (`metadata_table.cpp`); read are those of RELION 1 to 5 and of starfile. Floats are written in
the shortest form that gives the same number back, so a table survives any number of round trips bit by bit.
The reader is our own: starfile guesses types, takes ``#`` inside a name for a comment and fills short rows silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from cryopipe.errors import InputError
from cryopipe.io.atomic import atomic_write
from cryopipe.io.star_columns import cast_column, column_type

_QUOTED = re.compile(r"""'([^']*)'(?=\s|$)|"([^"]*)"(?=\s|$)|(\S+)""")
_Numbered = tuple[int, str]
#: RELION 3.1/4 and RELION 5 write these; the layout of single-particle tables is the same.
STAR_VERSIONS = (30001, 50001)


def read_blocks(path: str | Path) -> dict[str, pd.DataFrame]:
    """Read every block of a STAR file, columns typed by contract.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    dict of str to DataFrame
        Name behind ``data_`` (may be empty) to its table; a simple name-value list gives a table of one row.

    Raises
    ------
    InputError
        The file is missing, not text, has no block, or a row has too few or too many values (a truncated file).
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such STAR file.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a STAR file: byte {error.start} is not text.") from error
    lines = [(n, line) for n, raw in enumerate(text.split("\n"), 1) if (line := raw.strip()) and line[0] != "#"]
    blocks: dict[str, pd.DataFrame] = {}
    for name, body in _split_blocks(lines, path):
        if name in blocks:
            raise InputError(f"{path}: block data_{name} stands twice. Keep one.")
        loop = bool(body) and body[0][1].startswith("loop_")
        blocks[name] = _read_loop(body[1:], path) if loop else _read_list(body, path)
    if not blocks:
        raise InputError(f"{path}: no data_ block in it: empty, cut off or no STAR file.")
    return blocks


def write_blocks(
    path: str | Path, blocks: Mapping[str, pd.DataFrame | Mapping[str, object]], *, version: int = 30001
) -> None:
    """Write blocks to a STAR file, atomically.

    Parameters
    ----------
    path : path
        File to make or replace.
    blocks : mapping
        Name to a DataFrame (written as ``loop_``; may have no rows) or a mapping (written as a name-value list).
    version : {30001, 50001}
        RELION's file version: 3.1 and 4, or 5.

    Raises
    ------
    InputError
        A column has no legal name, or its contract and its values disagree.
    """
    if version not in STAR_VERSIONS:
        raise InputError(f"{path}: STAR version {version} is unknown; choose one of {STAR_VERSIONS}.")
    parts: list[str] = []
    for name, block in blocks.items():
        parts.append(f"\n# version {version}\n\ndata_{name}\n\n")
        if isinstance(block, pd.DataFrame):
            parts.append(_loop_text(block, f"{path}, block {name}"))
        else:
            parts.append(_list_text(block, f"{path}, block {name}"))
        parts.append("\n")
    atomic_write(path, "".join(parts))


def _split_blocks(lines: list[_Numbered], path: Path) -> Iterator[tuple[str, list[_Numbered]]]:
    starts = [i for i, (_, line) in enumerate(lines) if line.startswith("data_")]
    if lines and (not starts or starts[0] > 0):
        raise InputError(f"{path}, line {lines[0][0]}: {lines[0][1][:60]!r} stands before the first data_ block.")
    for start, end in zip(starts, [*starts, len(lines)][1:], strict=True):
        yield lines[start][1][len("data_") :], lines[start + 1 : end]


def _read_loop(body: list[_Numbered], path: Path) -> pd.DataFrame:
    names: list[str] = []
    for _, line in body:
        if line[0] != "_":
            break
        names.append(line.split(None, 1)[0][1:])
    if len(set(names)) != len(names):
        raise InputError(f"{path}: a column name stands twice among {', '.join(names)}. Keep one.")
    rows: list[list[str]] = []
    for number, line in body[len(names) :]:
        words = _words(line)
        if len(words) != len(names):
            raise InputError(
                f"{path}, line {number}: {len(words)} values for {len(names)} columns. "
                "The file is cut off or damaged; make it again."
            )
        rows.append(words)
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return pd.DataFrame({n: _series(cast_column(n, c, str(path))) for n, c in zip(names, columns, strict=True)})


def _series(values: np.ndarray) -> pd.Series:
    # said explicitly: pandas would infer text from the values, hence not in a table without rows
    return pd.Series(values, dtype="str" if values.dtype == object else values.dtype)


def _read_list(body: list[_Numbered], path: Path) -> pd.DataFrame:
    values: dict[str, pd.Series] = {}
    for number, line in body:
        words = _words(line)
        if len(words) != 2 or words[0][0] != "_":
            raise InputError(f"{path}, line {number}: {line[:60]!r} is not a pair of _name and value. Mend the file.")
        values[words[0][1:]] = _series(cast_column(words[0][1:], words[1:], str(path)))
    return pd.DataFrame(values)


def _words(line: str) -> list[str]:
    if '"' not in line and "'" not in line:
        return line.split()
    return [single or double or plain for single, double, plain in _QUOTED.findall(line)]


def _loop_text(table: pd.DataFrame, where: str) -> str:
    header = "loop_\n" + "".join(f"_{_legal(name, where)} #{i}\n" for i, name in enumerate(table.columns, 1))
    columns = [_formatted(name, table[name].to_numpy(), where) for name in table.columns]
    return header + "".join(" ".join(row) + "\n" for row in zip(*columns, strict=True))


def _list_text(block: Mapping[str, object], where: str) -> str:
    words = {_legal(n, where): _formatted(n, np.array([v]), where)[0] for n, v in block.items()}
    width = max((len(name) for name in words), default=0) + 1
    return "".join(f"_{name:{width}s} {word}\n" for name, word in words.items())


def _formatted(name: str, values: np.ndarray, where: str) -> list[str]:
    """Return the words of a column, right-aligned so that people can read the file."""
    kind = column_type(name)
    numeric = values.dtype.kind in "biuf"
    if len(values) and (numeric if kind == "text" else kind is not None and not numeric):
        raise InputError(
            f"{where}: column {name} holds {kind}, but its values are {values.dtype} such as {values[0]!r}."
        )
    if kind == "int" and values.dtype.kind == "f":
        raise InputError(f"{where}: column {name} holds whole numbers, but its values are {values.dtype}.")
    if not numeric:
        words = [_quoted(value, name, where) for value in values]
    elif values.dtype.kind == "f" or kind == "float":
        floats = values if values.dtype.kind == "f" else values.astype(np.float64)
        # float32 keeps its own shortest form: 0.85378 and not 0.8537799715995789
        words = [str(v) for v in floats] if floats.dtype != np.float64 else [repr(v) for v in floats.tolist()]
    else:
        words = [str(int(v)) for v in values]
    width = max(map(len, words), default=0)
    return [word.rjust(width) for word in words]


def _quoted(value: object, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(
            f"{where}: column {name} mixes text with {value!r} ({type(value).__name__}). Make all of it text."
        )
    if any(c in value for c in "\n\r"):
        raise InputError(f"{where}: column {name}: {value!r} has a line break, which STAR cannot hold.")
    plain = (
        value
        and not any(c.isspace() or c in "'\"" for c in value)
        and not value.startswith(("#", "_", "data_", "loop_"))
    )
    if plain:
        return value
    quote = '"' if '"' not in value else "'"
    if quote in value:
        raise InputError(f"{where}: column {name}: {value!r} has both kinds of quotes, which STAR cannot hold.")
    return f"{quote}{value}{quote}"


def _legal(name: object, where: str) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[^\s#_][^\s#]*", name):
        raise InputError(f"{where}: {name!r} cannot be a column name; use one word such as rlnImageName or crpWeight.")
    return name
