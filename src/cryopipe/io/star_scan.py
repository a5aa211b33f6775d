"""The raw words of a STAR file: what they must satisfy before starfile reads it, and a copy that starfile reads right.

starfile 0.5.13 reads many files otherwise than they are written, most of them without a word. It fills short rows, takes
``#`` inside a name for a comment and ``'`` for ``"``, reads ``nan`` as no value even in a column of names, drops
backslashes, fails on an empty loop that a comment follows, gives an empty block the rows of the next one, ends a loop at a
row that starts with ``data_``, overwrites a column called ``name``, and keeps one of two blocks or columns of the same
name. ``tests/io/test_star_library.py`` shows each case. So rows are counted here, and a file with such words is handed
over as a copy in which they are replaced by harmless ones; all others go to starfile as they are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryopipe.errors import InputError

_QUOTED = re.compile(r"""'([^']*)'(?=\s|$)|"([^"]*)"(?=\s|$)|(\S+)""")
#: Text that has none of these marks, and no # in a row, is read by starfile as it is written.
_MARKS = ('"', "'", "\\", "nan", "NaN", "<NA>")
_MISREAD = re.compile(r"""["'#\\]|nan|NaN|<NA>|^_|^data_|^loop_""")
#: Private characters of Unicode take the place of those that starfile reads otherwise; _SHIELD makes a word a mere word.
_SHIELD = "\ue000"
_ESCAPES = {ord(c): chr(ord(_SHIELD) + ord(c)) for c in "\"'#\\ \t"}
_RETURNS = {ord(_SHIELD): None} | {ord(v): chr(k) for k, v in _ESCAPES.items()}


@dataclass
class Block:
    """A block as it stands in the text: a loop has column names and lines of rows, a list names and their values."""

    name: str
    is_loop: bool = False
    columns: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lines) if self.is_loop else int(bool(self.values))

    def words(self) -> Iterator[list[str]]:
        """Yield the words of each row; a list is one row."""
        if self.is_loop:
            return (row_words(line, len(self.columns)) for line in self.lines)
        return iter([self.values] if self.values else [])


def scan(text: str, path: Path) -> tuple[list[Block], bool]:
    """Return the blocks of ``text``, and whether starfile would misread it.

    Raises
    ------
    InputError
        Text before the first block, a name that occurs twice, or a row of too few or too many values.
    """
    if not text.isascii() and re.search(f"[{_SHIELD}-{chr(ord(_SHIELD) + 127)}]", text):
        raise InputError(f"{path}: it has private characters of Unicode (U+E000 to U+E07F). Replace them.")
    blocks: list[Block] = []
    odd = any(mark in text for mark in _MARKS)
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line[0] == "#":
            continue
        block = blocks[-1] if blocks else None
        if block is not None and _is_row(block, line):
            count, columns = len(row_words(line, len(block.columns))), len(block.columns)
            if count != columns:
                raise InputError(
                    f"{path}, line {number}: {count} values for {columns} columns. "
                    "The file is cut off or damaged; make it again."
                )
            odd = odd or "#" in line or line.startswith("data_")
            block.lines.append(line)
        elif line.startswith("data_"):
            blocks.append(Block(line.split("#", 1)[0][len("data_") :].strip()))
        elif block is None:
            raise InputError(f"{path}, line {number}: {line[:60]!r} stands before the first data_ block.")
        else:
            odd = _add_name(block, line, f"{path}, line {number}") or odd
    _refuse_twins("block data_", [block.name for block in blocks], path)
    for block in blocks:
        _refuse_twins("column name ", block.columns, path)
    return blocks, odd or any(not len(block) or "name" in block.columns for block in blocks)


def starfile_copy(blocks: list[Block]) -> str:
    """Return a text with the same blocks, all as loops, that starfile reads right; `restored` undoes the replacements.

    Blocks without rows are left out, and each column name has one more underscore.
    """
    parts = []
    for block in filter(len, blocks):
        parts += [f"data_{block.name}", "loop_", *(f"__{column}" for column in block.columns)]
        if block.is_loop:
            # most rows have nothing to replace
            parts += [
                line if not _MISREAD.search(line) else _replaced(row_words(line, len(block.columns)))
                for line in block.lines
            ]
        else:
            parts.append(_replaced(block.values))
    return "\n".join(parts) + "\n"


def restored(word: str) -> str:
    """Return the word of the file that stands behind a word of the copy."""
    return word.translate(_RETURNS)


def row_words(line: str, count: int) -> list[str]:
    """Return the words of a row without their quotes, and without a comment at its end if that makes them ``count``."""
    if '"' not in line and "'" not in line:
        words = line.split()
    else:
        words = [single or double or plain for single, double, plain in _QUOTED.findall(line)]
    if len(words) > count and words[count][:1] == "#":
        return words[:count]
    return words


def _is_row(block: Block, line: str) -> bool:
    if not (block.is_loop and block.columns) or line == "loop_" or (line[0] == "_" and not block.lines):
        return False
    # a file name may start with data_: a row of it has several words, the head of a block one
    return not line.startswith("data_") or len(line.split("#", 1)[0].split()) > 1


def _add_name(block: Block, line: str, where: str) -> bool:
    """Take the head of a loop, one of its column names, or an entry of a list; return whether starfile misreads it."""
    if line.startswith("loop_") and not block.is_loop and not block.columns:
        block.is_loop = True
    elif block.is_loop and line[0] == "_" and not block.lines:
        block.columns.append(line.split(None, 1)[0][1:])
    else:
        words = row_words(line, 2)
        if block.is_loop or len(words) != 2 or words[0][0] != "_":
            raise InputError(f"{where}: {line[:60]!r} is not a pair of _name and value. Mend the file.")
        block.columns.append(words[0][1:])
        block.values.append(words[1])
        return "#" in line
    return False


def _replaced(words: list[str]) -> str:
    escaped = [word.translate(_ESCAPES) for word in words]
    return " ".join(word if word and not _MISREAD.search(word) else _SHIELD + word for word in escaped)


def _refuse_twins(what: str, names: list[str], path: Path) -> None:
    twins = [name for name, count in Counter(names).items() if count > 1]
    if twins:
        raise InputError(f"{path}: {what}{twins[0]} stands twice. Keep one.")
