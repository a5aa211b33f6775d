"""A terminal with one line at its end that changes, or a file without one."""

from __future__ import annotations

import os
import shutil
from typing import TextIO

_CLEAR = "\r\x1b[K"
_COLOURS = {"": "", "red": "\x1b[31m", "yellow": "\x1b[33m"}


class Screen:
    """Where a run writes to.

    Parameters
    ----------
    stream : file
        Standard error, as a rule.
    colour : bool
        Whether a terminal may be coloured; ``NO_COLOR`` forbids it, too.
    """

    def __init__(self, stream: TextIO, *, colour: bool = True) -> None:
        self._stream = stream
        self.changes = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._colour = self.changes and colour and "NO_COLOR" not in os.environ
        self._shown = ""

    def line(self, text: str, colour: str = "") -> None:
        """Write ``text`` for good."""
        start = _COLOURS[colour] if self._colour else ""
        end = "\x1b[0m" if start else ""
        self._write(f"{_CLEAR if self._shown else ''}{start}{text}{end}\n")
        self._shown = ""

    def status(self, text: str) -> None:
        """Let the last line of a terminal say ``text``, until the next line or status; files get none."""
        if self.changes and text != self._shown:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"{_CLEAR}{text if len(text) <= width else text[: width - 1] + '…'}")
            self._shown = text

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (BrokenPipeError, ValueError):  # the reader has gone, or the stream is closed: the run goes on
            pass
