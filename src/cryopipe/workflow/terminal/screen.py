"""A terminal whose last line changes, or a file, in which no line changes."""

from __future__ import annotations

import os
import shutil
from typing import TextIO

_CLEAR = "\r\x1b[K"
_COLOURS = {"": "", "red": "\x1b[31m", "yellow": "\x1b[33m"}


class Screen:
    """The output of a run.

    Parameters
    ----------
    stream : file
        Usually standard error.
    colour : bool
        Whether lines may have colours. ``NO_COLOR`` also forbids them.
    """

    def __init__(self, stream: TextIO, *, colour: bool = True) -> None:
        self._stream = stream
        self.changes = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._colour = self.changes and colour and "NO_COLOR" not in os.environ
        self._shown = ""

    def line(self, text: str, colour: str = "") -> None:
        """Write ``text`` as a line that stays."""
        start = _COLOURS[colour] if self._colour else ""
        end = "\x1b[0m" if start else ""
        self._write(f"{_CLEAR if self._shown else ''}{start}{text}{end}\n")
        self._shown = ""

    def status(self, text: str) -> None:
        """Show ``text`` in the last line of a terminal until the next line or status. Files do not get it."""
        if self.changes and text != self._shown:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"{_CLEAR}{text if len(text) <= width else text[: width - 1] + '…'}")
            self._shown = text

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (BrokenPipeError, ValueError):  # nobody reads, or the stream is closed. The run continues
            pass
