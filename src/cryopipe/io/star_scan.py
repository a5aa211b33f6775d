"""The raw words of a STAR file, and whether starfile would read them correctly.

starfile 0.5.13 misreads some files, mostly without a message. It fills short rows. It takes ``#`` inside a name for a comment
and ``'`` for ``"``. It reads ``nan`` as a missing value even among names, and drops backslashes. It fails on an empty loop
that is followed by a comment, gives an empty block the rows of the next one, and ends a loop at a row that starts with
``data_``. It overwrites a column called ``name``, and keeps only one of two blocks or columns with the same name.
``tests/io/test_star_library.py`` shows each case. So the words of every file are counted here. A file without such words is
read by starfile. The content of any other file is made from the words that were found here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryopipe.errors import InputError

_QUOTED = re.compile(r"""'([^']*)'(?=\s|$)|"([^"]*)"(?=\s|$)|(\S+)""")
#: starfile reads a text correctly if it has none of these marks, and no # in a row.
_MARKS = ('"', "'", "\\", "nan", "NaN", "<NA>")


@dataclass
class Block:
    """A block of the text. A loop has column names and rows. A list has names and their values.

    Only the number of the rows and their place in the text are kept, because the lines of a million particles take 200 MB.
    """

    name: str
    text: str = field(repr=False)
    is_loop: bool = False
    columns: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    rows: int = 0
    first: int = 0
    end: int = 0

    def __len__(self) -> int:
        return self.rows if self.is_loop else int(bool(self.values))

    def words(self) -> Sequence[Sequence[str]]:
        """Return the words column by column. A list has one row."""
        if not self.is_loop:
            return [[value] for value in self.values]
        lines = _lines(self.text, self.first, self.end) if self.rows else ()
        rows = [row_words(line, len(self.columns)) for _, line, _, _ in lines]
        return list(zip(*rows, strict=True)) if rows else [()] * len(self.columns)


def scan(text: str, path: Path) -> tuple[list[Block], bool]:
    """Return the blocks of ``text``, and whether starfile would misread it.

    Raises
    ------
    InputError
        There is text before the first block, a name occurs twice, or a row has too few or too many values.
    """
    blocks: list[Block] = []
    odd = any(mark in text for mark in _MARKS)
    for number, line, start, end in _lines(text):
        block = blocks[-1] if blocks else None
        if block is not None and _is_row(block, line):
            count, columns = len(row_words(line, len(block.columns))), len(block.columns)
            if count != columns:
                raise InputError(
                    f"{path}, line {number}: the row has {count} values for {columns} columns. "
                    "The file is cut off or damaged; make it again."
                )
            odd = odd or "#" in line or line.startswith("data_")
            block.first, block.end = (block.first if block.rows else start), end
            block.rows += 1
        elif line.startswith("data_"):
            blocks.append(Block(line.split("#", 1)[0][len("data_") :].strip(), text))
        elif block is None:
            raise InputError(f"{path}, line {number}: {line[:60]!r} is before the first data_ block. Mend the file.")
        else:
            odd = _add_name(block, line, f"{path}, line {number}") or odd
    _refuse_twins("block data_", [block.name for block in blocks], path)
    for block in blocks:
        _refuse_twins("column name ", block.columns, path)
    return blocks, odd or any(not len(block) or "name" in block.columns for block in blocks)


def row_words(line: str, count: int) -> list[str]:
    """Return the words of a row without their quotes, and without a comment at its end if that makes them ``count``."""
    if '"' not in line and "'" not in line:
        words = line.split()
    else:
        words = [single or double or plain for single, double, plain in _QUOTED.findall(line)]
    if len(words) > count and words[count][:1] == "#":
        return words[:count]
    return words


def _lines(text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, str, int, int]]:
    """Give out the lines of a part of the text without spaces around them, empty lines and comments left out.

    With each its number from 1, where it starts and where it ends.
    """
    number, last = 0, len(text) if end is None else end
    while start <= last:
        border = text.find("\n", start, last)
        border = last if border < 0 else border
        number += 1
        line = text[start:border].strip()
        if line and line[0] != "#":
            yield number, line, start, border
        start = border + 1


def _is_row(block: Block, line: str) -> bool:
    if not (block.is_loop and block.columns) or line == "loop_" or (line[0] == "_" and not block.rows):
        return False
    # a file name may start with data_, but a row has several words and the head of a block has one
    return not line.startswith("data_") or len(line.split("#", 1)[0].split()) > 1


def _add_name(block: Block, line: str, where: str) -> bool:
    """Add the head of a loop, one of its column names, or an entry of a list. Return whether starfile misreads it."""
    if line.startswith("loop_") and not block.is_loop and not block.columns:
        block.is_loop = True
    elif block.is_loop and line[0] == "_" and not block.rows:
        block.columns.append(line.split(None, 1)[0][1:])
    else:
        words = row_words(line, 2)
        if block.is_loop or len(words) != 2 or words[0][0] != "_":
            raise InputError(f"{where}: {line[:60]!r} is not a pair of _name and value. Mend the file.")
        block.columns.append(words[0][1:])
        block.values.append(words[1])
        return "#" in line
    return False


def _refuse_twins(what: str, names: list[str], path: Path) -> None:
    twins = [name for name, count in Counter(names).items() if count > 1]
    if twins:
        raise InputError(f"{path}: {what}{twins[0]} occurs twice. Keep one.")
