"""The blocks of a STAR file as data frames: the text of the format, nothing about its meaning.

starfile reads the files, those of RELION 1 to 5 and its own, where `star_scan` finds nothing that it would misread; the
columns get their types by contract instead of by guess. The numbers of float columns are those that starfile, that is
pandas, reads (it rounds correctly from version 3.1 on); all other columns are read as words.

Written are RELION's two forms, ``loop_`` tables and name-value lists, each behind a ``# version`` comment as RELION's own
writer does (`metadata_table.cpp`). starfile writes lists and the heads of loops, without its first line, which has the time
of day: the same tables give the same bytes. The rows of a loop are written by the pandas call that starfile makes, without
its quoting, which takes a fifth of the time and is wrong for words with quotes in them
(``tests/io/test_star_library.py``). Floats have the shortest form that gives the same number back.
"""

from __future__ import annotations

import csv
import linecache
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import starfile

from cryopipe.errors import InputError
from cryopipe.io.atomic import atomic_path
from cryopipe.io.star_columns import cast_column, column_type
from cryopipe.io.star_scan import Block, scan

#: RELION 3.1/4 and RELION 5 write these; the layout of single-particle tables is the same.
STAR_VERSIONS = (30001, 50001)
#: Rows that are written at a time: some 10 MB of words.
_PORTION = 5000
#: Words that need no quotes.
_PLAIN = re.compile(r"""(?!data_|loop_|[#_])[^\s'"]+\Z""")


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
    blocks, odd = scan(text, path)
    if not blocks:
        raise InputError(f"{path}: no data_ block in it: empty, cut off or not a STAR file.")
    tables = {} if odd else _starfile_tables(path, blocks)
    return {block.name: _typed(block, tables.pop(block.name, None), path) for block in blocks}


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
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        for name, block in blocks.items():
            where = f"{path}, block {name}"
            stream.write(f"\n# version {version}\n\n")
            if isinstance(block, pd.DataFrame):
                stream.writelines(_loop_text(name, block, where))
            else:
                stream.write(_list_text(name, block, where))
            stream.write("\n")


def _starfile_tables(path: Path, blocks: list[Block]) -> dict[str, pd.DataFrame]:
    """Read the blocks with starfile: float columns of loops as it guesses them, all others as words."""
    # starfile goes by name: what is read as words in one block is so in all
    words = {c for block in blocks for c in block.columns if not block.is_loop or column_type(c) != "float"}
    # it reads through linecache, which keeps the old lines of a file that could not be parsed before
    linecache.clearcache()
    found = starfile.read(path, always_dict=True, parse_as_string=list(words))
    return {
        name: block if isinstance(block, pd.DataFrame) else pd.DataFrame({k: [v] for k, v in block.items()})
        for name, block in found.items()
    }


def _typed(block: Block, table: pd.DataFrame | None, path: Path) -> pd.DataFrame:
    if table is not None and table.shape != (len(block), len(block.columns)):
        raise InputError(
            f"{path}: block data_{block.name} changed while it was read. Read it again when it is complete."
        )
    columns = {}
    counted = block.words() if table is None else []
    for i, name in enumerate(block.columns):
        is_float = column_type(name) == "float"
        if table is not None and is_float and table[name].dtype.kind in "iuf":
            columns[name] = pd.Series(table[name].to_numpy(np.float64))
            continue
        # starfile has made a float column with a word in it to something else: the error is to show the word
        words = (counted or block.words())[i] if table is None or is_float else table[name].tolist()
        cast = cast_column(name, words, str(path))
        # said explicitly: pandas would infer text from the values, hence not in a table without rows
        columns[name] = pd.Series(cast, dtype="str" if cast.dtype == object else cast.dtype)
    return pd.DataFrame(columns)


def _loop_text(block: str, table: pd.DataFrame, where: str) -> Iterator[str]:
    """Give out the text of a loop in portions: the words of all rows take some 2 kB for each row."""
    if not table.columns.is_unique:
        raise InputError(f"{where}: a column name stands twice among {', '.join(map(str, table.columns))}. Keep one.")
    for start in range(0, max(len(table), 1), _PORTION):
        some = table.iloc[start : start + _PORTION]
        ready = pd.DataFrame({_legal(name, where): _ready(name, some[name].to_numpy(), where) for name in some.columns})
        if start == 0:
            yield f"{_starfile_text(block, ready.head(0))}\n"
        if len(ready):
            yield ready.to_csv(
                sep="\t", header=False, index=False, na_rep="nan", quoting=csv.QUOTE_NONE, lineterminator="\n"
            )


def _list_text(block: str, values: Mapping[str, object], where: str) -> str:
    words = {_legal(name, where): _ready(name, np.array([value]), where)[0] for name, value in values.items()}
    return _starfile_text(block, words) + "\n"


def _starfile_text(block: str, content: pd.DataFrame | dict[str, object]) -> str:
    """Return starfile's text of a block without the line that has the time."""
    # words are quoted already
    return starfile.to_string({block: content}, quote_character="").split("\n", 1)[1].strip()


def _ready(name: str, values: np.ndarray, where: str) -> Sequence[object] | np.ndarray:
    """Return the values of a column as they are to be printed: float64, int64 or quoted words."""
    kind = column_type(name)
    numeric = values.dtype.kind in "biuf"
    if len(values) and (numeric if kind == "text" else kind is not None and not numeric):
        raise InputError(
            f"{where}: column {name} holds {kind}, but its values are {values.dtype} such as {values[0]!r}."
        )
    if kind == "int" and values.dtype.kind == "f":
        raise InputError(f"{where}: column {name} holds whole numbers, but its values are {values.dtype}.")
    if not numeric:
        return np.array([_quoted(value, name, where) for value in values], dtype=object)
    if values.dtype.kind == "f" and values.dtype != np.float64:
        # float32 keeps its own shortest form: 0.85378 and not 0.8537799715995789
        return np.array([str(value) for value in values], dtype=np.float64)
    return values.astype(np.float64 if kind == "float" or values.dtype.kind == "f" else np.int64)


def _quoted(value: object, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(
            f"{where}: column {name} mixes text with {value!r} ({type(value).__name__}). Make all of it text."
        )
    if _PLAIN.match(value):
        return value
    if any(c in value for c in "\n\r\t"):
        raise InputError(f"{where}: column {name}: {value!r} has a line break or a tab, which STAR cannot hold.")
    quote = '"' if '"' not in value else "'"
    if quote in value:
        raise InputError(f"{where}: column {name}: {value!r} has both kinds of quotes, which STAR cannot hold.")
    return f"{quote}{value}{quote}"


def _legal(name: object, where: str) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[^\s#_][^\s#]*", name):
        raise InputError(f"{where}: {name!r} cannot be a column name; use one word such as rlnImageName or crpWeight.")
    return name
